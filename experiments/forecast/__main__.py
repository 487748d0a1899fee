from experiments import command
from experiments.forecast import train

command.run(train.main)
