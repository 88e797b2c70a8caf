"""The HTML page of a signal report, without its contents."""

import string

PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5a5a66; --paper: #fff;
  --line: #d9d9e0; --shade: #f4f4f7; --good: #0b6b3a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ee; --soft: #a6a6b3; --paper: #17171b; --line: #3a3a44;
    --shade: #212127; --good: #6fd79f; --bad: #ff9d94; }
  img { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
.good { --tone: var(--good); }
.bad { --tone: var(--bad); }
header { padding: 1rem 1.25rem; border: 1px solid var(--line); border-radius: .5rem;
  border-left: .5rem solid var(--tone); }
header p { margin: .5rem 0 0; max-width: 46rem; overflow-wrap: break-word; }
header .mark { margin: 0; color: var(--tone); font-size: 2.25rem; font-weight: 700;
  line-height: 1.3; }
code { font-size: .9em; }
sup { line-height: 0; }
img { display: block; width: 100%; max-width: 38rem; height: auto; margin: 2rem auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem;
  margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
.scroll { overflow: auto; max-height: 85vh; border: 1px solid var(--line);
  border-radius: .5rem; }
table { width: 100%; border-collapse: separate; border-spacing: 0; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { padding: .5rem .75rem; text-align: left; color: var(--soft); }
th, td { padding: .25rem .5rem; border-top: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
tr { background: var(--paper); }
thead tr, tr:nth-child(even) { background: var(--shade); }
thead th { position: sticky; top: 0; z-index: 1; background: inherit;
  white-space: normal; vertical-align: bottom; line-height: 1.25; }
tr > :first-child { position: sticky; left: 0; background: inherit;
  border-right: 1px solid var(--line); }
thead tr > :first-child { z-index: 2; }
tbody th { font-weight: 400; }
tbody th, .text { text-align: left; }
summary { margin: 1rem 0; cursor: pointer; }
@media print { .scroll { max-height: none; } }
</style>
</head>
<body>
<header class="$tone">
<h1>$title</h1>
<p class="mark">$mark</p>
$verdict
</header>
<main>
<img src="data:image/svg+xml;base64,$picture" alt="$alt">
<h2>What was measured</h2>
<dl>
$facts
</dl>
<h2 id="layers">Layer by layer</h2>
<div class="scroll" role="region" aria-labelledby="layers" tabindex="0">
<table>
<caption>$caption</caption>
<thead>
<tr>$head</tr>
</thead>
<tbody>
$rows
</tbody>
</table>
</div>
<details>
<summary>What the columns say</summary>
<dl>
$columns
</dl>
</details>
</main>
</body>
</html>
""")
