"""Families: a member by name or table, errors with their path, a new member in one class."""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from vla.base.errors import ConfigError
from vla.base.family import as_table
from vla.base.strict import StrictModel, explain
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.fusion.fusion import FusionSizes
from vla.policy.heads.flow import FlowConfig
from vla.policy.heads.head import HEADS
from vla.policy.heads.imf import ImfConfig
from vla.policy.policy_config import POLICIES, PolicyConfig
from vla.policy.trunks.linear import LinearConfig
from vla.policy.trunks.trunk import TRUNKS, TrunkConfig


class Tables(StrictModel):
    """A configuration file with one table."""

    policy: Annotated[PolicyConfig, POLICIES.choice()] = POLICIES.by_default()


def read(**policy: Any) -> VLAAgentConfig:
    config = Tables.model_validate({"policy": policy}).policy
    assert isinstance(config, VLAAgentConfig)
    return config


def refusal(**policy: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Tables.model_validate({"policy": policy})
    return explain(caught.value, Tables)


def test_a_table_that_says_nothing_is_the_default_policy() -> None:
    assert Tables().policy == read() == read(type="agent")
    assert read().head == ImfConfig()


@pytest.mark.parametrize("head", ["flow", {"type": "flow"}, FlowConfig()])
def test_a_member_is_a_name_a_table_or_a_config(head: object) -> None:
    assert read(head=head).head == FlowConfig()


def test_a_table_without_a_type_is_of_the_default_member() -> None:
    assert read(head={"flow_share": 0.25}).head == ImfConfig(flow_share=0.25)


def test_a_key_can_be_set_in_a_member_that_was_named_alone() -> None:
    table = as_table("imf")
    assert isinstance(table, dict)
    assert read(head={**table, "flow_share": 0.25}).head == ImfConfig(flow_share=0.25)
    assert as_table({"type": "flow"}) == {"type": "flow"} and as_table(3) == 3


def test_a_dump_holds_the_members_own_settings_and_reads_back() -> None:
    config = read(head={"type": "ddpm", "eta": 0.5}, trunks={"top": "linear"})
    dumped = json.loads(json.dumps(Tables(policy=config).model_dump(mode="json")))
    assert dumped["policy"]["head"] == {"type": "ddpm", "levels": 100, "clip": 1.0, "eta": 0.5}
    assert dumped["policy"]["trunks"] == {"top": {"type": "linear"}}
    assert Tables.model_validate(dumped).policy == config


def test_a_value_that_is_not_valid_is_named_with_its_whole_path() -> None:
    assert refusal(head={"type": "imf", "flow_share": 2}).startswith(
        "'policy.head.flow_share' = 2 is not valid: "
    )


def test_an_unknown_key_of_a_member_names_the_nearest_of_that_member() -> None:
    said = refusal(head={"type": "imf", "flow_shar": 0.5})
    assert said == "unknown key 'policy.head.flow_shar'; did you mean 'flow_share'?"
    assert refusal(heads="imf") == "unknown key 'policy.heads'; did you mean 'head'?"


def test_an_unknown_member_names_the_nearest_one() -> None:
    said = refusal(head="flw")
    assert said.startswith("'policy.head' = 'flw' is not valid: ")
    assert "there is no action head 'flw'; did you mean 'flow'?" in said


def test_what_is_neither_name_nor_table_is_refused() -> None:
    assert "expected the name of one kind of action head, or a table with 'type'" in refusal(head=3)


def test_more_cannot_be_executed_than_is_predicted() -> None:
    assert "num_action_steps 16 must be at most pred_horizon - obs_horizon + 1 = 15" in refusal(
        num_action_steps=16
    )


def test_the_width_is_shared_by_the_attention_heads() -> None:
    assert "n_emb 30 must be a multiple of 2 * n_head = 16" in refusal(n_emb=30)


def test_a_new_member_is_one_class() -> None:
    class TwiceConfig(LinearConfig):
        """A member of a plugin."""

        type: Literal["twice"] = "twice"  # type: ignore[assignment]

    assert isinstance(TRUNKS.parse("twice"), TwiceConfig)
    assert TRUNKS.members()["twice"] is TwiceConfig


def test_members_are_found_without_a_list_of_them() -> None:
    assert {"linear", "attention_pool", "conv", "pointnet", "temporal_conv"} <= TRUNKS.members().keys()
    assert all(issubclass(config, TrunkConfig) for config in TRUNKS.members().values())


def test_a_saved_name_cannot_name_a_module() -> None:
    with pytest.raises(ConfigError, match="there is no action head 'os'"):
        HEADS.member("os")


def test_the_raw_condition_is_what_comes_into_the_fusion() -> None:
    sizes = FusionSizes(tokens={"top": (1, 192), "imu": (2, 8)}, state_dim=16, task_dim=0, cond_dim=384)
    assert sizes.raw_dim == 192 + 16 + 16
