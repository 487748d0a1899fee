from experiments import command
from experiments.memory import evaluate, train

command.run(train.main, table=evaluate.main)
