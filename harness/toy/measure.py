"""The fixed part of the toy: a known landscape that costs a few milliseconds to measure.

    python -S -E measure.py          reads params.py
    python -S -E measure.py parts    reads parts/a.py, parts/b.py, parts/c.py and parts/d.py

It prints `METRIC loss=<value>`, to be minimised. It owns the landscape, the noise, the cost and
the failures, and it knows nothing of torch, of git or of who changes the numbers.

The landscape. A number x with best value b and weight w adds w * log(x / b)^2, so halving and
doubling count the same everywhere. A switch at its worse position adds its weight. The floor is 1:

    loss = 1 + sum of all terms + coupling * (sum over the numbers of log(x / b))^2

The optimum is every number at its best value, with a loss of exactly 1, whatever the coupling. As
shipped the loss is 3.1908 without coupling, in both layouts. Each number can be improved alone and
the gains add up; coupling makes them lean on each other, while the optimum stays.

    number   shipped   best   weight        number   shipped   best   weight
    rate        0.01   0.05     0.15        reach       0.2    0.8      0.15
    decay        0.5    0.9     0.40        scale       4.0    1.0      0.10
    width       20.0   64.0     0.20        gain        1.5    3.0      0.50
    depth        3.0    6.0     0.40        offset     0.05    0.2      0.12
    warm       False   True     0.25 (switch)

Switches, all from the environment and all off by default:

    TOY_NOISE        standard deviation of a gaussian added to the loss
    TOY_CRASH        share of measurements that end with exit status 1 and no metric
    TOY_SLEEP        seconds to sleep
    TOY_STRAGGLERS   share of measurements that sleep ten times as long
    TOY_CPU          CPU seconds to burn
    TOY_COUPLING     the coupling above, 0 or more

All chance comes from SWARM_SEED (default 0) and the numbers read: one seed and one set of numbers
always give one outcome, and another seed or another set of numbers gives an independent one.
`SWARM_RESULT`, when set, names a file that receives the loss as JSON.
"""

# Start-up is the cost of this program: what it imports is built into the interpreter or frozen.
import math
import sys
import time
from os import environ

Values = dict[str, object]

sys.dont_write_bytecode = True

NUMBERS = {
    "rate": (0.05, 0.15),
    "decay": (0.9, 0.40),
    "width": (64.0, 0.20),
    "depth": (6.0, 0.40),
    "reach": (0.8, 0.15),
    "scale": (1.0, 0.10),
    "gain": (3.0, 0.50),
    "offset": (0.2, 0.12),
}
SWITCHES = {"warm": (True, 0.25)}
FLOOR = 1.0
STRAGGLER_FACTOR = 10.0
MASK = 2**64 - 1


def setting(name: str) -> float:
    return float(environ.get(name, "0"))


def read_values(paths: list[str]) -> Values:
    """Run each file; its last assignment of a name counts."""
    values: Values = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            exec(compile(file.read(), path, "exec"), values)
    return values


def loss_at(values: Values, coupling: float) -> float:
    loss, lean = FLOOR, 0.0
    for name, (best, weight) in NUMBERS.items():
        value = values.get(name)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise SystemExit(f"FAIL: {name} must be a number above 0, got {value!r}")
        distance = math.log(value / best)
        loss += weight * distance * distance
        lean += distance
    for name, (best, weight) in SWITCHES.items():
        loss += 0.0 if bool(values.get(name)) is best else weight
    return loss + coupling * lean * lean


def chance(values: Values, purpose: int) -> float:
    """A number in (0, 1) from the seed, the values and the purpose, by splitmix64's mixing.

    The built-in `hash` of a string changes with every process, and `random` takes longer to
    import than all the rest takes to run; `hash` of a float does not change.
    """
    state = int(environ.get("SWARM_SEED", "0")) & MASK
    parts = [purpose]
    parts += [hash(values[name]) for name in NUMBERS]
    parts += [int(bool(values.get(name))) for name in SWITCHES]
    for part in parts:
        state = (state + 0x9E3779B97F4A7C15 + part) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return (state + 0.5) / 2**64


def gaussian(values: Values) -> float:
    radius = math.sqrt(-2.0 * math.log(chance(values, 1)))
    return radius * math.cos(2.0 * math.pi * chance(values, 2))


def spend(values: Values) -> None:
    seconds = setting("TOY_SLEEP")
    if chance(values, 3) < setting("TOY_STRAGGLERS"):
        seconds *= STRAGGLER_FACTOR
    if seconds:
        time.sleep(seconds)
    end = time.process_time() + setting("TOY_CPU")
    while time.process_time() < end:
        pass


def main() -> None:
    home = __file__.rpartition("/")[0] or "."
    files = [f"parts/{part}.py" for part in "abcd"] if "parts" in sys.argv[1:] else ["params.py"]
    values = read_values([f"{home}/{file}" for file in files])
    loss = loss_at(values, setting("TOY_COUPLING"))
    spend(values)
    if chance(values, 4) < setting("TOY_CRASH"):
        raise SystemExit("FAIL: a crash, as TOY_CRASH asks for")
    loss += setting("TOY_NOISE") * gaussian(values)
    print(f"METRIC loss={loss!r}")
    result = environ.get("SWARM_RESULT")
    if result:
        with open(result, "w", encoding="utf-8") as file:
            file.write(f'{{"metrics": {{"loss": {loss!r}}}}}\n')


if __name__ == "__main__":
    main()
