from experiments import command
from experiments.video import train

command.run(train.main)
