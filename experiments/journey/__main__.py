from experiments import command
from experiments.journey.classifier import main

if __name__ == "__main__":
    command.run(main)
