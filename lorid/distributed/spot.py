"""Ray's AWS provider, with on-demand machines where the spot market has none.

    provider: {type: external, module: lorid.distributed.spot.SpotFirstProvider, region: us-west-2}

Ray's own provider asks for one thing, in every zone, again and again. Node types with `priority` do
not help: Ray 2.60 counts a type as unavailable when its machine does not start, not when AWS
refuses to sell it. A node type without `InstanceMarketOptions` is launched as Ray does it.
"""

import logging
from collections.abc import Mapping
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

# What EC2 answers when the spot market has no machine, or the account may have no more of them.
NO_SPOT = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "UnfulfillableCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
    }
)
logger = logging.getLogger(__name__)


class SpotFirstProvider(AWSNodeProvider):
    """Asks for spot machines in every zone, and then for on-demand ones."""

    def _create_node(
        self, node_config: Mapping[str, Any], tags: Mapping[str, str], count: int
    ) -> dict[str, Any]:
        try:
            return super()._create_node(node_config, tags, count)
        except NodeLaunchException as error:
            if "InstanceMarketOptions" not in node_config or error.category not in NO_SPOT:
                raise
            logger.warning(
                "no spot %s in any zone (%s): %d on demand instead",
                node_config.get("InstanceType"), error.category, count,
            )  # fmt: skip
        on_demand = {
            key: value for key, value in node_config.items() if key != "InstanceMarketOptions"
        }
        return super()._create_node(on_demand, tags, count)
