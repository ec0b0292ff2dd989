"""What the report of suite `frontier` says: reward and KL of each run beside the exact frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation import make_env
from ..frontier import EPISODES, curve, ngram_task
from ..rows import Row
from .document import Cell, Section, Table
from .drawing import Ink
from .figures import frontier


def sections(rows: Sequence[Row], look: Mapping[str, Ink]) -> list[Section]:
    """Return what the report says of the suite, its agents drawn in the given inks."""
    by_agent: dict[str, list[Row]] = {}
    for row in rows:
        by_agent.setdefault(row["experiment"]["agent"], []).append(row)
    points = {
        agent: [
            (m["kl"], m["reward"], 1.96 * m["kl_error"], 1.96 * m["reward_error"])
            for m in (row["measurement"] for row in found)
        ]
        for agent, found in by_agent.items()
    }
    env_kwargs = rows[0]["experiment"]["env_kwargs"]
    env = make_env(rows[0]["experiment"]["env_id"], 1, env_kwargs)
    kl, reward = curve(ngram_task(env))
    figure = frontier(
        "frontier-ngram",
        "Reward against KL on NGram",
        (kl.tolist(), reward.tolist()),
        points,
        look,
        caption=f"A cross is one seed at one KL coefficient: {EPISODES:,} sampled episodes, 1.96 standard errors. "
        "The line is the largest reward at each KL, computed exactly.",
    )
    env.close()
    text = (
        "How much reward a policy buys with its distance from a language model, an n-gram of the environment. "
        "PPO pays KL times the coefficient in its reward, DQN draws from reference * exp(Q / coefficient).",
    )
    return [Section("The exact frontier", text, (figure,), (_table(by_agent),))]


def _table(by_agent: Mapping[str, Sequence[Row]]) -> Table:
    lines = []
    for agent, rows in by_agent.items():
        by_price: dict[float, list[Row]] = {}
        for row in rows:
            by_price.setdefault(row["experiment"]["agent_kwargs"]["beta"], []).append(row)
        for beta, seeds in by_price.items():
            found = [row["measurement"] for row in seeds]
            gaps = [gap(m) for m in found]
            lines.append(
                (
                    Cell(agent, agent=agent),
                    Cell(f"{beta:g}"),
                    *(
                        Cell(f"{np.mean([m[name] for m in found]):.3f}")
                        for name in ("kl", "reward", "frontier_reward")
                    ),
                    Cell(f"{np.mean(gaps):.1%}"),
                    Cell(f"{max(gaps):.1%}"),
                    Cell(str(len(seeds))),
                )
            )
    header = ("agent", "KL coefficient", "KL, nats", "reward", "best at this KL", "gap", "worst seed", "seeds")
    caption = (
        "Means over seeds. Best at this KL: the exact frontier where the policy's own KL lies. Gap: by how much "
        "the reward misses it, as a share of what lies between the language model's reward and the optimum."
    )
    return Table(header, tuple(lines), caption, labels=2, in_readme=True)


def gap(measurement: Mapping[str, float]) -> float:
    """Return how far the reward lies below the frontier, as a share of (optimal - reference reward)."""
    span = measurement["optimal_reward"] - measurement["reference_reward"]
    return (measurement["frontier_reward"] - measurement["reward"]) / span
