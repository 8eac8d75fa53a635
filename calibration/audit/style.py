"""The look of the audit's page, on screen and on A4 paper; without a script, so rows fold by a check box.

In print every row is open, a heading stays with its first chart, and the table of all rows lies on its side.
"""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1d2327;max-width:62rem;margin:2rem auto;padding:0 1rem;background:#fff}
header{border-left:.5rem solid;padding-left:1rem}
h1{font-size:1.8rem;margin:.2rem 0}h2{font-size:1.3rem;margin:2.2rem 0 .3rem}h3{font-size:1rem;margin:1rem 0 .2rem}
svg{width:100%;height:auto;display:block}code{overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:.8rem}td,th{padding:.15rem .5rem;text-align:left;vertical-align:top}
tr:nth-child(even) td{background:#f5f6f7}.pictures td,.pictures th{padding:.1rem .15rem;vertical-align:middle}
.pictures th{font-weight:400;max-width:11rem}
.pictures img{width:72px;height:72px;image-rendering:pixelated;display:block}
.note{font-size:.9rem;color:#444}label{cursor:pointer}.why{color:#b3261e;font-size:.9rem}
.origin{margin-top:.5rem}.origin th{font-weight:400;color:#444}.origin td{background:none!important}
.signed{width:100%}.signed td{border-bottom:1px solid #1d2327;height:2.6rem;background:none!important}
.signed td,.signed th{width:28%}.signed th:first-child{width:16%;font-weight:400;vertical-align:bottom}
@media screen{#all:not(:checked)~table{display:none}}
@media print{
@page{size:A4;margin:16mm 15mm}
@page rows{size:A4 landscape;margin:12mm}
body{font-size:10pt;max-width:none;margin:0;padding:0;-webkit-print-color-adjust:exact;print-color-adjust:exact}
h1{font-size:17pt}h2{font-size:13pt}h2,h3{break-after:avoid}p,li{orphans:3;widows:3}
.keep,svg,tr,img{break-inside:avoid}thead{display:table-header-group}
.rows{page:rows}.rows table{font-size:7pt;width:100%}.rows td,.rows th{padding:.1rem .3rem}
#all,label{display:none}
}
"""
"""The page's style sheet."""
