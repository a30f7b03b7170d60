"""The input of the example: pages of an imaginary shop, and what each of them must come out as.

Both are made from one layout by two ways that know nothing of each other: `page` writes it as a
template, `right` writes the finished page with Python's own means. It never imports the engine.
"""

import html
import random
from typing import Any

WORDS = [
    "lamp", "chair", "<table>", "shelf", "Rug", "&", "mat", '"soft"', "curtain", "mirror", "hook",
    "drawer", "bench", "o'clock", "stool", "sofa", "basket", "candle", "vase", "clock", "frame",
    "tray", "jar", "kettle", "spoon", "blanket", "pillow",
]  # fmt: skip
LINKS = ["about", "help", "jobs", "news", "press", "stores", "terms", "privacy"]
SECTIONS = 6
ITEMS = 8


def words(chance: random.Random, count: int) -> str:
    """Some words."""
    return " ".join(chance.choices(WORDS, k=count))


def page(chance: random.Random) -> list[Any]:
    """Make the arguments of one call: a template that no other call gets, and its data."""
    kinds = ["list", "table", "note"] * (SECTIONS // 3)
    chance.shuffle(kinds)
    layout = [{"kind": kind, "heading": words(chance, 3)} for kind in kinds]
    data: dict[str, Any] = {
        "layout": layout,
        "shop": {"name": words(chance, 2), "city": words(chance, 1)},
        "member": chance.random() < 0.5,
        "parts": [part(chance) for _ in kinds],
        **{link: words(chance, 1) for link in LINKS},
    }
    template = "\n".join(
        [
            "{# made by pages.py #}<h1>{{ shop.name | title }}</h1>",
            "{% if member %}Welcome back to {{ shop.city }}{% else %}Join us{% end %}",
            *(section(entry, index) for index, entry in enumerate(layout)),
            *(f"<a>{{{{ {link} }}}}</a>" for link in LINKS),
        ]
    )
    return [template, data]


def part(chance: random.Random) -> dict[str, Any]:
    """Give the data of one section."""
    items = [
        {
            "name": words(chance, 2),
            "cents": chance.randrange(100, 10_000_000),
            "tags": chance.sample(WORDS, 2),
            "left": chance.choice([0, 1, 7]),
        }
        for _ in range(ITEMS)
    ]
    return {"items": items, "text": words(chance, 25)}


def section(entry: dict[str, Any], index: int) -> str:
    """Write one section as a template."""
    head = f"<h2>{html.escape(entry['heading'])}</h2>\n"
    path = f"parts.{index}"
    if entry["kind"] == "list":
        return (
            f"{head}<ul>{{% for item in {path}.items %}}\n"
            '<li>{{ loop.index }}. {{ item.name | cut:"14" | upper }}'
            ' ({{ item.tags | join:", " }})</li>{% end %}</ul>'
        )
    if entry["kind"] == "table":
        return (
            f"{head}{{% for item in {path}.items %}}"
            "<tr><td>{{ item.name }}</td><td>{{ item.cents | money }}</td>"
            "<td>{% if item.left %}{{ item.left }} left{% else %}sold out{% end %}</td></tr>\n"
            "{% end %}"
        )
    return (
        f"{head}<p>{{{{ {path}.text }}}}</p>"
        f'{{% for item in {path}.none %}}x{{% else %}}{{{{ {path}.sign | default:"The | team" }}}}'
        f"{{% end %}} <b>{{{{ {path}.text | raw }}}}</b>"
    )


def right(arguments: list[Any], output: Any) -> bool:
    """Say whether a page came out as it must."""
    return output == expected(arguments[1])


def expected(data: dict[str, Any]) -> str:
    """Write the finished page."""
    shop = data["shop"]
    welcome = f"Welcome back to {html.escape(shop['city'])}" if data["member"] else "Join us"
    parts = zip(data["layout"], data["parts"], strict=True)
    return "\n".join(
        [
            f"<h1>{html.escape(shop['name'].title())}</h1>",
            welcome,
            *(finished(entry, own) for entry, own in parts),
            *(f"<a>{html.escape(data[link])}</a>" for link in LINKS),
        ]
    )


def finished(entry: dict[str, Any], own: dict[str, Any]) -> str:
    """Write one section as it must come out."""
    head = f"<h2>{html.escape(entry['heading'])}</h2>\n"
    items = own["items"]
    if entry["kind"] == "list":
        rows = "".join(
            f"\n<li>{number}. {html.escape(short(item['name']).upper())}"
            f" ({html.escape(', '.join(item['tags']))})</li>"
            for number, item in enumerate(items, 1)
        )
        return f"{head}<ul>{rows}</ul>"
    if entry["kind"] == "table":
        return head + "".join(
            f"<tr><td>{html.escape(item['name'])}</td><td>{item['cents'] / 100:,.2f}</td>"
            f"<td>{str(item['left']) + ' left' if item['left'] else 'sold out'}</td></tr>\n"
            for item in items
        )
    return f"{head}<p>{html.escape(own['text'])}</p>The | team <b>{own['text']}</b>"


def short(text: str) -> str:
    """Cut to 14 characters, dots included."""
    return text if len(text) <= 14 else f"{text[:11]}..."
