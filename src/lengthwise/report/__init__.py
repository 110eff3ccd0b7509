"""What a simulation or a run came to, as one HTML file that people look at.

```
simulation_page.py                       a study of a log → its page
run_page.py                              a run → its page
run_record.py, again.py                  a run, looked at while it goes on; its answers again, in other orders
traces.py, pays.py                       what is simulated for the page beyond what the command says
prefix_cache.py                          what a prefix cache had under each policy
figures/                                 numbers → figures: charts, words, table and CSV
page.py, figure.py, page.html, page.css  sentence, numbers and figures → one file
charts/, canvas.py, scales.py            charts as inline SVG
```
"""
