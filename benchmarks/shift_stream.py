"""`should-update` on a real stream with dates: a part of `make bench NAME=shift`.

The stream is the share price of Google from August 2004 to October 2008, by trading day, which matplotlib
ships as sample data. A row has the date, the log returns of the last five days, the range of prices of the
day, its volume against the mean of the last twenty days, and the weekday. Each quarter is compared with all
quarters before it, and with the one before it, by the settings that params.yaml has by default. There is no
true answer but for the last, short quarter, in which the financial crisis broke out.
"""

from __future__ import annotations

import numpy as np
from matplotlib import cbook
from report import Report
from shift_rates import decided

NAMES = ("day", *(f"return-{days}" for days in range(5)), "range", "volume", "weekday")
MEAN_OF = 20  # days of the mean that a day's volume is compared with


def stream() -> np.ndarray:
    """Return a row for each day, float64 `(days, 9)`: date in days since 1970, numbers, weekday."""
    prices = np.load(cbook.get_sample_data("goog.npz", asfileobj=False))["price_data"]
    returns = np.diff(np.log(prices["adj_close"]))
    spread = np.log(prices["high"] / prices["low"])[1:]
    volume = np.log(prices["volume"][1:])
    days = prices["date"][1:].astype("datetime64[D]").astype(np.int64)
    rows = []
    for today in range(MEAN_OF, len(returns)):
        usual = volume[today - MEAN_OF : today].mean()
        numbers = (*returns[today - 4 : today + 1], spread[today], volume[today] - usual)
        rows.append((days[today], *numbers, (days[today] + 3) % 7))
    return np.array(rows)


def quarters(rows: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each calendar quarter."""
    months = rows[:, 0].astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return [rows[months // 3 == number] for number in np.unique(months // 3)]


def measure(report: Report) -> None:
    """Print the answer for each quarter, by both references, and compare with aims."""
    parts = quarters(stream())
    answers: dict[str, list[bool]] = {"all quarters before": [], "the quarter before": []}
    print(
        "\nquarter from    days   update asked for, compared with all quarters before, the last one"
    )
    for number in range(2, len(parts)):
        for name, reference in zip(
            answers, (np.concatenate(parts[:number]), parts[number - 1]), strict=True
        ):
            answers[name].append(decided(NAMES, 1, reference, parts[number], number).update)
        first = str(parts[number][0, 0].astype("datetime64[D]"))
        shown = ["yes" if each[-1] else "no" for each in answers.values()]
        print(f"{first}      {len(parts[number]):>4}   {shown[0]:<5}{shown[1]}")
    for name, found in answers.items():
        print(f"{name}: {sum(found)} of {len(found)} quarters ask for an update")
        report.values[f"a share price, {name}"] = [float(each) for each in found]
        report.at_most(f"a share price, {name}: share of yes", float(np.mean(found)), 0.9)
        report.at_least(f"a share price, {name}: asked in the crisis", float(found[-1]), 1)
