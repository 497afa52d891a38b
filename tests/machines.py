"""How the state machines are played: a failure is shown as it was found.

Making it smaller replays thousands of plays, longer than a test may take: the time-out would be all that is seen of it. To have it
smaller, take `phases` away here and give pytest `-o timeout=0`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def played(examples: int, steps: int) -> settings:
    """So many plays of at most so many steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
