from experiments.journey.classifier import main

main()
