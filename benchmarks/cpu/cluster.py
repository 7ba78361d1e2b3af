"""Turns the lines of TRAINER_FAULT_FIGURES into the table of cluster.md: python3 benchmarks/cpu/cluster.py FILE"""
import collections
import statistics
import sys

runs = collections.OrderedDict()
for line in open(sys.argv[1]):
    fault, _, *figures = line.rstrip("\n").split("|")
    runs.setdefault(fault, []).append([float(figure) if figure else None for figure in figures])

print("| fault | runs | noticed s | first new step s | steps trained twice | job s |")
print("|---|---|---|---|---|---|")
for fault, rows in runs.items():
    cells = []
    for column in zip(*rows):
        values = [value for value in column if value is not None]
        cells.append(f"{min(values):g} / {statistics.median(values):g} / {max(values):g}" if values else "")
    print(f"| {fault} | {len(rows)} | {' | '.join(cells)} |")
