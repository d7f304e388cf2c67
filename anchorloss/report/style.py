"""The page's stylesheet: system fonts, one column for reading, figures and tables in a wider one, two
themes.
"""

from __future__ import annotations

from anchorloss.report.colours import VARIABLES


def stylesheet() -> str:
    """The whole CSS of a report; it names no file and no host."""
    light = "".join(f"--{name}:{value};" for name, (_, value, _) in VARIABLES.items())
    dark = "".join(f"--{name}:{value};" for name, (_, _, value) in VARIABLES.items())
    themes = f":root{{color-scheme:light dark;{light}}}\n"
    themes += f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    return themes + _RULES


_SERIF = '"Charter","Bitstream Charter","Source Serif 4","Sitka Text",Cambria,"Liberation Serif",serif'
_SANS = (
    '"Inter","Segoe UI",-apple-system,BlinkMacSystemFont,Roboto,"Helvetica Neue","Liberation Sans",sans-serif'
)
_MONO = 'ui-monospace,"Cascadia Mono","SF Mono",Menlo,"DejaVu Sans Mono","Liberation Mono",monospace'

_RULES = (
    f"""
:root{{--serif:{_SERIF};--sans:{_SANS};--mono:{_MONO}}}
"""
    + """
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 var(--serif)}
nav,table,figure,h2,h3,.badge,.stamp,.verdicts,.note,summary{font-family:var(--sans)}
a{color:inherit;text-decoration-color:var(--muted);text-underline-offset:.18em}
a:hover{text-decoration-color:currentColor}
:focus-visible{outline:3px solid var(--loss-background);outline-offset:3px;border-radius:2px}
.skip{position:absolute;left:-9999px;top:0;padding:.6rem 1rem;background:var(--ink);color:var(--paper)}
.skip:focus{left:.5rem;top:.5rem}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:3.2rem}
p,ul,ol{max-width:44rem}
h1{font-size:clamp(2rem,1.3rem + 3vw,3rem);line-height:1.1;letter-spacing:-.015em;margin:0 0 1rem;font-weight:600}
h2{font-size:1.35rem;line-height:1.25;letter-spacing:-.01em;margin:0 0 .6rem}
h3{font-size:1.05rem;margin:1.8rem 0 .4rem}
section{border-top:1px solid var(--rule);padding:1.9rem 0 2.2rem}
section:focus{outline:none}
.lead{color:var(--muted);margin:.2rem 0 1.2rem}
.stamp{display:block;max-width:44rem;margin:1.1rem 0 0;padding:.7rem .95rem;border:1.5px solid var(--stamp)}
.stamp{border-radius:4px;color:var(--stamp);font-size:.95rem;line-height:1.45;letter-spacing:0}
.stamp b{display:block}
.stamp span{font-weight:400}
nav ul{list-style:none;margin:0 0 2rem;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;max-width:none}
nav a{display:inline-block;padding:.25rem 0;font-size:.9rem}
.verdicts{list-style:none;margin:0 0 1.8rem;padding:0;font-size:.95rem;line-height:1.5}
.verdicts li{margin:0 0 1.1rem;padding-left:1rem;border-left:4px solid var(--c)}
.verdicts b{display:block;margin-bottom:.15rem}
.badge{display:inline-block;padding:.04rem .5rem;border:1.5px solid currentColor;border-radius:3px}
.badge{font-size:.78rem;font-weight:650;color:var(--muted);white-space:nowrap}
.badge.supported{color:var(--loss-both)}
.badge.contradicted{color:var(--stamp)}
.loss{white-space:nowrap;font-weight:600}
.loss::before{content:"";display:inline-block;width:.7em;height:.7em;margin-right:.45em;border-radius:2px}
.loss::before{background:var(--c)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.8rem 2.2rem}
.figures{margin:1.2rem 0 1.6rem}
.figures.one{grid-template-columns:minmax(0,32rem)}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:.5rem 2.5rem}
.beside>*{min-width:0}
.beside .figures{margin-top:.2rem;align-content:start}
figure{margin:0;min-width:0;max-width:32rem}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
figcaption,.note{color:var(--muted);font-size:.86rem;line-height:1.45;max-width:44rem}
figcaption{margin-top:.4rem}
.scroll{overflow-x:auto;margin:1rem 0 1.6rem;max-width:100%}
table{border-collapse:collapse;font-size:.87rem;line-height:1.4;font-variant-numeric:tabular-nums lining-nums}
caption{text-align:left;font-weight:600;padding:0 0 .4rem}
caption div{position:sticky;left:0;max-width:min(60rem,calc(100vw - 2.5rem))}
caption span{font-weight:400;color:var(--muted);margin-left:.5em}
th,td{padding:.36rem 1.3rem .36rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:.2rem}
thead th{vertical-align:bottom;color:var(--muted);font-weight:500;border-bottom:1.5px solid var(--muted)}
tbody th{font-weight:400}
th.number,td.number{text-align:right}
td.number,.short{white-space:nowrap}
@media (max-width:40rem){th:first-child{position:sticky;left:0;background:var(--paper);padding-right:.8rem}}
.best{font-weight:700}
code{font:.86em/1.4 var(--mono);overflow-wrap:anywhere}
.short code{overflow-wrap:normal}
details{margin:1rem 0}
summary{cursor:pointer;font-size:.92rem;padding:.3rem 0}
footer{color:var(--muted);font-size:.9rem;padding-bottom:4rem}
@media (max-width:40rem){body{font-size:16px}header{padding-top:1.6rem}section{padding:1.5rem 0 1.8rem}}
@media print{.skip,nav{display:none}.scroll{overflow:visible}}
"""
)
