"""Sixty texts that would do harm where they are shown as they stand."""

SCRIPTS = [
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "</SCRIPT ><SCRIPT>window.hacked=1</SCRIPT>",
    "<!--<script>window.hacked=1//-->",
    "<!-- ",
    "--><script>window.hacked=1</script>",
    "<![CDATA[<script>window.hacked=1</script>]]>",
    "<img src=x onerror=window.hacked=1>",
    "<img src='http://127.0.0.1:9/pixel.png'>",
    "<svg onload=window.hacked=1>",
    "<svg><script>window.hacked=1</script></svg>",
    "<svg><animate onbegin=window.hacked=1 attributeName=x dur=1s>",
    "<math><mtext></mtext><script>window.hacked=1</script></math>",
    "<iframe src='javascript:parent.hacked=1'></iframe>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<object data='data:text/html,<script>alert(1)</script>'></object>",
    "<embed src='http://127.0.0.1:9/x.swf'>",
    "<link rel=stylesheet href='http://127.0.0.1:9/x.css'>",
    "<style>*{display:none!important}</style>",
    "</style><style>body{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href='http://127.0.0.1:9/'>",
    "<form action='http://127.0.0.1:9/'><button>send</button></form>",
    "<a href='javascript:window.hacked=1'>link</a>",
    "<details open ontoggle=window.hacked=1>",
    "<body onload=window.hacked=1>",
    "<input autofocus onfocus=window.hacked=1>",
    "<video><source onerror=window.hacked=1></video>",
    "<template><script>window.hacked=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
    '" onmouseover="window.hacked=1',
    "' onfocus='window.hacked=1' autofocus='",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
    "&#60;script&#62;window.hacked=1&#60;/script&#62;",
    "{{ 7 * 7 }}{% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}",
    "${alert(1)}`${window.hacked=1}`",
    "javascript:window.hacked=1//",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "\\u003cscript\\u003ewindow.hacked=1\\u003c/script\\u003e",
    "</div></section></main></body></html>",
    "</details></li></ul></td></tr></tbody></table>",
]
MARKDOWN = [
    "[click](javascript:alert(1)) ![x](http://127.0.0.1:9/x.png)",
    "# heading\n\n| a | b |\n|---|---|\n<script>window.hacked=1</script>",
    "```html\n<script>window.hacked=1</script>\n```",
]
TERMINAL = [
    "\x1b[2J\x1b[1;1H\x1b[31mred",
    "\x1b]0;title\x07\x1b]8;;http://127.0.0.1:9\x07link\x1b]8;;\x07",
    "\x1b[?1049h\x1b[?25l\x9b31m",
    "\r\b\b\b\x00\x07\x7f",
    "\x1bP+q544e\x1b\\\x1b_payload\x1b\\",
]
DIRECTION = [
    "\u202ereversed text\u202c",
    "\u2066\u2067\u2068isolates never closed",
    "\u200f\u061cmarks \u202btext",
    "שלום עולם (hello) 123 مرحبا",
]
HIDDEN = [
    "zero\u200bwidth\u200c\u200d\ufeff\u2060",
    "tags \U000e0041\U000e0042\U000e007f hidden",
    "line\u2028separator\u2029paragraph",
    "lone \ud800 surrogate",
    "soft\u00adhyphen\u034f and \u115f filler",
]
LARGE = ["Z̸̡̢͍̟̩͇̲̪͖̋̽̆̉̄͑̿͒͘͜a" + "\u0301\u0489" * 400, "W" * 2**20]

TEXTS = [*SCRIPTS, *MARKDOWN, *TERMINAL, *DIRECTION, *HIDDEN, *LARGE]
