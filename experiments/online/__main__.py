from experiments import command
from experiments.online import train

command.run(train.main)
