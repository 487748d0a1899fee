from experiments import command
from experiments.journey import train

command.run(train.main)
