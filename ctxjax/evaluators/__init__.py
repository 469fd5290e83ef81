"""What can be measured of a state: each exports Evaluator with run(state) -> {name: value}."""
