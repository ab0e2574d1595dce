"""Q-learning on cliff walking as plain loops: NumPy one learner at a time, NumPy over all learners at once, and numba.

It imports nothing of rlgen and prints one line of JSON.  Run it as::

    python benchmarks/peers/tabular.py numba '{"learners": 1024, "steps": 20000}'
"""

import json
import sys
import threading
import time

import numpy as np

ROWS, COLUMNS, START, GOAL = 4, 12, 36, 47
LEARNING_RATE, EPSILON = 0.5, 0.1
MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])


def tables():
    """Successor and reward by state and action, [48, 4]."""
    index = np.arange(ROWS * COLUMNS)
    row, column = np.divmod(index, COLUMNS)
    to_row = np.clip(row[:, None] + MOVES[:, 0], 0, ROWS - 1)
    to_column = np.clip(column[:, None] + MOVES[:, 1], 0, COLUMNS - 1)
    successor = to_row * COLUMNS + to_column
    cliff = (successor > START) & (successor < GOAL)
    return np.where(cliff, START, successor), np.where(cliff, -100.0, -1.0)


def one_at_a_time(learners, steps, seed=0):
    """A Python loop over steps for each learner, NumPy arrays for tables."""
    successor, reward = tables()
    random = np.random.default_rng(seed)
    for _ in range(learners):
        values, state = np.zeros((ROWS * COLUMNS, 4)), START
        for _ in range(steps):
            action = random.integers(4) if random.random() < EPSILON else values[state].argmax()
            after = successor[state, action]
            target = reward[state, action] + (0.0 if after == GOAL else values[after].max())
            values[state, action] += LEARNING_RATE * (target - values[state, action])
            state = START if after == GOAL else after
    return values


def all_at_once(learners, steps, seed=0):
    """A Python loop over steps, NumPy over learners."""
    successor, reward = tables()
    random = np.random.default_rng(seed)
    who = np.arange(learners)
    values, state = np.zeros((learners, ROWS * COLUMNS, 4), np.float32), np.full(learners, START)
    for _ in range(steps):
        explores = random.random(learners) < EPSILON
        action = np.where(explores, random.integers(4, size=learners), values[who, state].argmax(1))
        after = successor[state, action]
        target = reward[state, action] + np.where(after == GOAL, 0.0, values[who, after].max(1))
        values[who, state, action] += LEARNING_RATE * (target - values[who, state, action])
        state = np.where(after == GOAL, START, after)
    return values[0]


def compiled():
    """The loop of `one_at_a_time` compiled by numba, learners spread over all cores."""
    import numba

    @numba.njit(parallel=True)
    def run(successor, reward, learners, steps):
        total = 0.0
        for learner in numba.prange(learners):
            np.random.seed(learner)  # noqa: NPY002 (all that numba knows)
            values, state = np.zeros((48, 4), np.float32), 36
            for _ in range(steps):
                best = 0
                for candidate in range(1, 4):
                    if values[state, candidate] > values[state, best]:
                        best = candidate
                action = np.random.randint(4) if np.random.random() < 0.1 else best  # noqa: NPY002
                after = successor[state, action]
                largest = values[after, 0]
                for candidate in range(1, 4):
                    largest = max(largest, values[after, candidate])
                target = reward[state, action] + (0.0 if after == 47 else largest)
                values[state, action] += 0.5 * (target - values[state, action])
                state = 36 if after == 47 else after
            total += values[36, 0]
        return total

    return run


def bandwidth(megabytes=256, repeats=5):
    """Bytes a second that all cores together read and write in `a = b + c`."""
    import os

    size = megabytes * 2**20 // 4
    cores = os.cpu_count() or 1
    arrays = [[np.ones(size // cores, np.float32) for _ in range(3)] for _ in range(cores)]

    def triad(a, b, c):
        for _ in range(repeats):
            np.add(b, c, out=a)

    threads = [threading.Thread(target=triad, args=group) for group in arrays]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 3 * 4 * size * repeats / (time.perf_counter() - start)


def main(side, options):
    """Times one side and prints what it took."""
    learners, steps = options["learners"], options["steps"]
    if side == "bandwidth":
        print(json.dumps({"bytes_per_second": bandwidth()}))
        return
    begun = time.perf_counter()
    if side == "numba":
        run = compiled()
        successor, reward = tables()
        run(successor, reward, 2, 10)
        compile_seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        run(successor, reward, learners, steps)
    else:
        compile_seconds = 0.0
        {"numpy": one_at_a_time, "numpy_vectorised": all_at_once}[side](learners, steps)
    seconds = time.perf_counter() - begun
    print(json.dumps({"steps_per_second": learners * steps / seconds, "compile_seconds": compile_seconds}))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
