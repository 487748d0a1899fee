import sys

from experiments import command
from experiments.char_lm.comparing import compare
from experiments.char_lm.training import train
from experiments.char_lm.writing import sample_command


def main() -> None:
    command, *rest = sys.argv[1:] or [""]
    if command == "sample":
        sample_command(rest)
    elif command == "compare":
        compare(rest)
    else:
        train(sys.argv[1:])


if __name__ == "__main__":
    command.run(main)
