"""Sixty texts that try to be more than text."""

import json

from harness.live import LiveGateway
from k2think.agents.backends.simulator import Reply

ELSEWHERE = "http://elsewhere.invalid"
"""No page of ours may ask for anything there."""
RAN = "window.ran=1;alert(1)"
"""What the scripts among them do: the mark and the dialog are looked for."""
_ESC = "\x1b"

HOSTILE: tuple[str, ...] = (
    # HTML that runs something
    f"<script>{RAN}</script>",
    f"</pre></details><script>{RAN}</script>",
    f"</script><script>{RAN}</script>",
    f"</title><script>{RAN}</script>",
    f"</textarea><script>{RAN}</script>",
    f"<SCRIPT SRC={ELSEWHERE}/x.js></SCRIPT>",
    f"<scr<script>ipt>{RAN}</scr</script>ipt>",
    f"<img src=x onerror='{RAN}'>",
    f"<img src={ELSEWHERE}/pixel.png>",
    f"<image href={ELSEWHERE}/pixel.png>",
    f"<video><source onerror='{RAN}'></video>",
    f"<details open ontoggle='{RAN}'>x</details>",
    f"<input autofocus onfocus='{RAN}'>",
    f"<body onload='{RAN}'>",
    f"<iframe srcdoc='<script>parent.{RAN}</script>'></iframe>",
    f"<iframe src='{ELSEWHERE}/frame'></iframe>",
    f"<object data='{ELSEWHERE}/o.swf'></object>",
    f"<embed src='{ELSEWHERE}/e.pdf'>",
    f"<base href='{ELSEWHERE}/'>",
    f"<link rel=stylesheet href='{ELSEWHERE}/s.css'>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}/'>",
    f"<form action='{ELSEWHERE}/'><button autofocus>Press</button></form>",
    f"<svg onload='{RAN}'></svg>",
    f"<svg><script>{RAN}</script></svg>",
    f"<svg><animate onbegin='{RAN}' attributeName=x dur=1s></svg>",
    f"<svg><foreignObject><img src={ELSEWHERE}/f.png></foreignObject></svg>",
    f"<math><mtext><style><img src=x onerror='{RAN}'></style></mtext></math>",
    f"<noscript><p title=\"</noscript><img src=x onerror='{RAN}'>\"></noscript>",
    f"<!--><img src=x onerror='{RAN}'>-->",
    f"<![CDATA[<script>{RAN}</script>]]>",
    f"<template><script>{RAN}</script></template>",
    f"<div hx-get='{ELSEWHERE}/' hx-trigger=load>htmx</div>",
    f"<div hx-on::load='{RAN}' data-hx-on:click='{RAN}'>htmx</div>",
    # Leaving an attribute, a string, a template
    f'" onmouseover="{RAN}" x="',
    f"' autofocus onfocus='{RAN}' x='",
    f"`${{{RAN}}}`",
    "{{ 7*191 }}{% for x in y %}{{ cycler.__init__.__globals__ }}",
    "${7*191} #{7*191} <%= 7*191 %> [[7*191]]",
    f"&lt;script&gt;{RAN}&lt;/script&gt; &#60;b&#62; &amp;amp;",
    f"\\u003cscript\\u003e{RAN}\\u003c/script\\u003e",
    # Markdown and addresses
    f"![pixel]({ELSEWHERE}/md.png)",
    f"[press](javascript:{RAN})",
    f"<a href='javascript:{RAN}'>press</a>",
    f"data:text/html,<script>{RAN}</script>",
    f"<{ELSEWHERE}/auto> and {ELSEWHERE}/plain",
    # Styles
    f"<style>@import '{ELSEWHERE}/i.css'; body{{display:none}}</style>",
    f'<p style="background:url({ELSEWHERE}/b.png);position:fixed;inset:0">over all</p>',
    f"</style><script>{RAN}</script>",
    # Terminals
    f"{_ESC}[2J{_ESC}[1;1Hcleared {_ESC}[31mred{_ESC}[0m",
    f"{_ESC}]0;title{_ESC}\\ {_ESC}]8;;{ELSEWHERE}{_ESC}\\link{_ESC}]8;;{_ESC}\\",
    f"{_ESC}]52;c;cm0gLXJmIH4={_ESC}\\ clipboard \x9b31m C1 \x90q\x9c",
    "bell\x07 back\x08\x08\x08\x08 over\rwritten \x00 nul \x7f delete",
    # What is not seen, or turns what is seen
    "user\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{POP DIRECTIONAL FORMATTING} admin",
    "\N{RIGHT-TO-LEFT ISOLATE}\N{LEFT-TO-RIGHT EMBEDDING}embedded\N{RIGHT-TO-LEFT MARK} never closed",
    "in\N{ZERO WIDTH SPACE}visi\N{SOFT HYPHEN}ble \N{WORD JOINER}and\N{ZERO WIDTH NO-BREAK SPACE} joined",
    "tags:" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all rules") + "\U000e007f",
    "line\N{LINE SEPARATOR}and paragraph\N{PARAGRAPH SEPARATOR}separators \N{NEXT LINE}next",
    # Size
    "W" * 3_000,
    "Z\N{COMBINING ACUTE ACCENT}\N{COMBINING GRAVE ACCENT}\N{COMBINING TILDE}" * 200,
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 \N{GRINNING FACE} 漢字 <b>mixed</b> " * 40,
)


def case_of(live: LiveGateway, text: str) -> dict[str, object]:
    """Return a job whose problem and notes hold the text, and whose planner, generator and judge answer with it."""
    mark = live.replies.to_mark(
        planner=Reply(text=f"plan: {text}"),
        generator=Reply(text=f"content: {text}\n<answer>answer: {text}</answer>", reasoning=f"reasoning: {text}"),
    )
    verdict = json.dumps({"reason": f"judged: {text}", "preference": "A"})
    live.replies.scripted["judge", mark] = Reply(text=verdict)
    given = text.replace("\0", "")  # no body may hold it; models may write it
    problem = f"{mark} problem: {given}"
    return {"problem": problem, "metadata": {"note": given[:400]}, "policy": {"n": 2, "selection": "pairwise"}}
