from experiments import command
from experiments.classify import train

command.run(train.main)
