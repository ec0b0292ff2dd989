"""The suites' own loops, as their documentation writes them: what our environments are timed against."""

from __future__ import annotations

from .suite import import_suite, isolated


def reasoning_gym_loop(episodes: int, *, dataset: str = "basic_arithmetic", answer: str = "0") -> float:
    """Make questions of reasoning-gym one by one and score an answer to each.

    Returns:
        Mean score.

    Raises:
        ImportError: if reasoning-gym is not installed.
    """
    data = import_suite("reasoning_gym", "reasoning-gym").create_dataset(dataset, seed=0, size=episodes)
    with isolated(0):
        return sum(data.score_answer(answer, entry) for entry in data) / episodes


def textarena_loop(episodes: int, *, game: str = "GuessTheNumber-v0", moves: tuple[str, ...] = ("[7]",)) -> int:
    """Play a game of TextArena with a fixed list of moves, over and over.

    A new game is made for each episode, because its wrapper keeps the history of all games it played.

    Returns:
        Moves made.

    Raises:
        ImportError: if textarena is not installed.
    """
    textarena = import_suite("textarena", "textarena")
    made = 0
    with isolated(0):
        for seed in range(episodes):
            env, over, turn = textarena.make(game), False, 0
            env.reset(num_players=1, seed=seed)
            while not over:
                env.get_observation()
                over, _ = env.step(action=moves[turn % len(moves)])
                turn += 1
            env.close()
            made += turn
    return made
