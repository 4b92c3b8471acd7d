"""Trunks: one stream in, tokens out; trained with the policy. A file each, with its config.

    linear          standardise, project each token or vector
    attention_pool  standardise, attend over tokens with learned positions
    conv            images: strided convolutions, spatial softmax, project the keypoints
    resnet          images: ResNet-18 or 34, or its full-AttnRes form, spatial softmax, project the keypoints
    pointnet        scans: one MLP for every point, maximum over points
    temporal_conv   series: convolutions over time, mean

A new trunk is a file here, or a plugin, with a config that extends `TrunkConfig`; nothing lists them.
"""
