"""Ways of executing the chunks that a policy predicts; in evaluation, server and LeRobot alike.

    chunk        the first actions of a chunk, then the next chunk; every policy can
    ensemble     the mean of what all chunks so far say of now
    real_time    each chunk joins the one before it, while that is still being executed
    self_verify  of several chunks the one that agrees best with what was just done

A new way is a file here, or a plugin, with a config that extends `ExecutionConfig`; nothing lists them.
"""
