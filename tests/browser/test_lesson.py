"""The step-through page in a real browser: the whole forward and backward pass, by mouse, by touch and by keys."""

import re

import pytest

from milligrad import Linear, Sequential, Tanh, Value, step_through
from milligrad import sum as total
from tests.browser.conftest import eventually, fits, violations
from tests.draw.graphs import NASTY

NAMES = ["x", "w", "v1", "b", "v2", "y"]
GIVEN, UNKNOWN = {"x": "0.5", "w": "−1.2", "b": "0.3"}, "?"
# What each step makes known, worked out by hand: 1 - tanh²(0.3) = 0.9151, and that times −1.2 and 0.5.
FORWARD = [{"v1": "−0.6"}, {"v2": "−0.3"}, {"y": "−0.2913"}]
BACKWARD = [{"y": "1"}, {"v2": "0.9151"}, {"v1": "0.9151", "b": "0.9151"}, {"x": "−1.098", "w": "0.4576"}]
PHASES = ["Given", *[f"Forward, {i} of 3" for i in (1, 2, 3)], *[f"Backward, {i} of 4" for i in (1, 2, 3, 4)], "Result"]
STEPS = len(PHASES)


def expected(k):
    """The data and the gradients that are shown at step k, counted from 0."""
    data, grad = dict.fromkeys(NAMES, UNKNOWN) | GIVEN, dict.fromkeys(NAMES, "0")
    for known in FORWARD[:k]:
        data |= known
    for known in BACKWARD[: max(0, k - len(FORWARD))]:
        grad |= known
    return data, grad


@pytest.fixture
def neuron(tmp_path):
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    step_through(y, tmp_path / "lesson.html")
    return tmp_path / "lesson.html"


def shown(page):
    """What the picture says: of each name, its data and its gradient."""
    data, grad = {}, {}
    for box in page.locator(".node").all():
        lines = box.locator("text").all_text_contents()
        data[lines[0]] = next(line for line in lines if line.startswith("data")).removeprefix("data ")
        grad[lines[0]] = next(line for line in lines if line.startswith("grad")).removeprefix("grad ")
    return data, grad


def position(page):
    return int(page.locator("#count").inner_text().split()[0]) - 1


def step_in_sight(page):
    [item] = [item for item in page.locator("#steps > li").all() if item.is_visible()]
    return item.inner_text()


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("way", ["keys", "buttons"])
def test_the_whole_pass_forth_and_back(visit, neuron, size, way):
    page = visit(neuron, size)
    assert fits(page)

    def press(key, button):
        if way == "keys":
            page.keyboard.press(key)
        else:
            page.get_by_role("button", name=button, exact=True).click()

    for k in range(STEPS):
        assert position(page) == k
        assert shown(page) == expected(k)
        words = step_in_sight(page)
        assert words.startswith(
            [
                "Given",
                *[f"Forward, {i} of 3" for i in (1, 2, 3)],
                *[f"Backward, {i} of 4" for i in (1, 2, 3, 4)],
                "Result",
            ][k]
        )
        if k < STEPS - 1:
            press("ArrowRight", "Next")
    for k in reversed(range(STEPS - 1)):
        press("ArrowLeft", "Back")
        assert (position(page), shown(page)) == (k, expected(k))
    press("End", "Last")
    assert (position(page), shown(page)) == (STEPS - 1, expected(STEPS - 1))
    press("Home", "First")
    assert (position(page), shown(page)) == (0, expected(0))


def test_the_current_node_and_its_edges_stand_out(visit, neuron):
    page = visit(neuron)
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert page.locator(".node.current .name").all_text_contents() == ["v2"]
    assert len(page.locator(".edge.current").all()) == 2  # of v1 and b
    assert sorted(page.locator(".node.todo .name").all_text_contents()) == []
    assert len(page.locator(".edge.todo").all()) == 2  # those of x and w, along which nothing came yet
    page.keyboard.press("Home")
    assert page.locator(".node.todo .name").all_text_contents() == ["v1", "v2", "y"]
    assert "∂v2/∂v1" in page.locator("#steps").text_content() and "∂v2/∂v1" not in step_in_sight(page)


def test_the_current_edges_lie_above_the_others_below_the_nodes(visit, tmp_path):
    x = Value(0.5, "x")
    step_through((x * 2.0) * x.tanh() + x, tmp_path / "lesson.html")
    page = visit(tmp_path / "lesson.html")
    drawn = "[...document.querySelectorAll('.edge, .node')].map(e => e.id + (e.matches('.edge.current') ? ' now' : ''))"
    start = page.evaluate(drawn)
    for _ in range(int(page.locator("#position").get_attribute("max"))):
        page.keyboard.press("ArrowRight")
        order = page.evaluate(drawn)
        now = sorted(i for i in order if i.endswith(" now"))
        others = [i for i in start if f"{i} now" not in now]  # in the order that they had
        first = others.index("n0")
        assert order == [*others[:first], *[i for i in order if i in now], *others[first:]]
    assert page.evaluate(drawn) == start  # nothing is current at the end


def test_it_plays_by_itself_at_the_speed_that_is_chosen_and_stops_at_the_end(visit, neuron):
    page = visit(neuron)
    page.keyboard.press(" ")
    assert page.get_by_role("button", name="Pause").is_visible()
    page.clock.run_for(1600 * 2)
    assert position(page) == 2
    page.keyboard.press(" ")
    page.clock.run_for(10_000)
    assert position(page) == 2
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.get_by_label("Speed").input_value() == "4"
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(400 * 3)
    assert position(page) == 5
    page.get_by_label("Speed").select_option("0.5")
    page.clock.run_for(3_200)
    assert position(page) == 6
    page.clock.run_for(3_200 * 10)
    assert position(page) == STEPS - 1
    assert page.get_by_role("button", name="Play").is_visible()
    page.get_by_role("button", name="Play").click()  # from the start again
    assert position(page) == 0
    page.clock.run_for(3_200)
    assert position(page) == 1
    page.keyboard.press("-")
    assert page.get_by_label("Speed").input_value() == "0.5"  # there is no slower one


def test_every_part_can_be_reached_and_worked_by_keys_alone(visit, neuron):
    page = visit(neuron)
    focused = []
    for _ in range(20):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if focused[-1] == "SUMMARY":
            break
        outlined = page.evaluate("e => parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2")
        assert outlined or page.locator(".node:focus-visible .box").count() == 1
    assert focused == [
        "first",
        "back",
        "play",
        "next",
        "last",
        "speed",
        "position",
        "steps",
        *[f"n{i}" for i in range(6)],
        "SUMMARY",
    ]
    page.keyboard.press("Control+ArrowRight")  # the browser's own
    assert position(page) == 0
    page.focus("#position")
    page.keyboard.press("ArrowRight")
    assert position(page) == 1  # once, not twice
    page.focus("#speed")
    page.keyboard.press("ArrowDown")
    assert (position(page), page.get_by_label("Speed").input_value()) == (1, "2")
    page.focus("#next")
    page.keyboard.press(" ")
    assert position(page) == 2 and page.get_by_role("button", name="Play").is_visible()
    page.focus("#n5")
    page.keyboard.press("Enter")
    assert position(page) == 3  # where y is computed
    page.keyboard.press("ArrowRight")
    page.focus("#n4")
    page.keyboard.press(" ")
    assert position(page) == 6  # where v2 passes its gradient on


def test_a_button_keeps_the_focus_where_it_leads_no_further(visit, neuron):
    page = visit(neuron)

    def focus_and_state(button):
        page.keyboard.press("Enter")
        focused = page.evaluate("document.activeElement.id")
        return focused, position(page), page.locator(f"#{button}").get_attribute("aria-disabled")

    page.focus("#next")
    for k in range(1, STEPS):
        assert focus_and_state("next") == ("next", k, str(k == STEPS - 1).lower())
    assert focus_and_state("next") == ("next", STEPS - 1, "true")  # once more does nothing
    assert violations(page) == []
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    for k in reversed(range(STEPS - 1)):
        assert focus_and_state("back") == ("back", k, str(k == 0).lower())
    assert focus_and_state("back") == ("back", 0, "true")
    assert violations(page) == []
    page.keyboard.press("Shift+Tab")
    assert focus_and_state("first") == ("first", 0, "true")


def test_each_step_is_told_to_who_does_not_see_it(visit, neuron):
    page = visit(neuron)
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    told = page.get_by_role("status").text_content()
    assert told.startswith("Backward, 4 of 4. v1 passes its gradient on. v1.grad = 0.9151 is complete.")
    assert "∂v1/∂x = w = −1.2. x.grad += 0.9151 · −1.2. x.grad: 0 → −1.098" in told
    assert page.locator("#position").get_attribute("aria-valuetext") == "Backward, 4 of 4"
    assert page.get_by_role("button", name="v1, x * w, 0.5 * (−1.2), data −0.6, grad 0.9151", exact=True).is_visible()


@pytest.mark.parametrize("how", ["hover", "focus"])
def test_a_node_tells_of_itself(visit, neuron, how):
    page = visit(neuron)
    tip = page.get_by_role("tooltip")
    assert tip.is_hidden()
    getattr(page.locator("#n3"), how)()
    assert tip.locator("div").all_text_contents() == ["v1", "x * w", "data ?", "grad 0"]
    page.keyboard.press("ArrowRight")
    assert tip.locator("div").all_text_contents() == ["v1", "x * w", "0.5 * (−1.2)", "data −0.6", "grad 0"]
    page.keyboard.press("Escape")
    assert tip.is_hidden()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_what_is_told_of_a_node_stays_on_the_screen(visit, tmp_path, size):
    z = Value(0.5, "a name that is rather long, " * 3)
    for _ in range(12):
        z = z.tanh() * 0.9
    z.name = "and one at the other end, " * 3
    step_through(z, tmp_path / "lesson.html")
    page = visit(tmp_path / "lesson.html", size)
    window = page.viewport_size

    def box():
        return page.get_by_role("tooltip").bounding_box()

    for i in (0, 12, 24):
        page.focus(f"#n{i}")
        assert eventually(page, lambda: box()["x"] >= 0 and box()["x"] + box()["width"] <= window["width"])
        assert eventually(page, lambda: box()["y"] >= 0 and box()["y"] + box()["height"] <= window["height"])
    assert eventually(page, lambda: box()["width"] > 350)  # though its node stands on the right


def test_on_a_phone_what_is_told_of_a_node_hides_none_of_its_neighbours(visit, neuron):
    page = visit(neuron, "phone", has_touch=True, is_mobile=True)
    page.locator("#n2").tap()
    tip = page.get_by_role("tooltip").bounding_box()
    for node in page.locator(".node").all():
        box = node.bounding_box()
        assert tip["y"] + tip["height"] <= box["y"] or box["y"] + box["height"] <= tip["y"]


def is_within(inner, outer):
    return outer["y"] <= inner["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"]


def test_the_beginning_of_a_step_is_in_sight_wherever_the_last_one_was_read(visit, tmp_path):
    z = total([Value(0.1 * i, f"x{i}") for i in range(30)])
    step_through(z + total([z, *z.inputs]), tmp_path / "lesson.html")
    page = visit(tmp_path / "lesson.html", "phone")
    panel, heading = page.locator("#steps"), page.locator("#steps > .current h2")
    page.get_by_role("button", name="Play").click()
    page.evaluate("scrollTo(0, 50)")
    scrolled = 0
    for _ in range(int(page.locator("#position").get_attribute("max"))):
        panel.evaluate("panel => panel.scrollTo(0, 10_000)")
        scrolled += panel.evaluate("panel => panel.scrollTop") > 100
        page.clock.run_for(1600)
        assert eventually(page, lambda: is_within(heading.bounding_box(), panel.bounding_box()))
        assert page.evaluate("scrollY") == 50  # the page itself stays where the reader put it
    assert scrolled == 3  # the first step, the last, and that of the sum are long


def test_it_works_by_touch(visit, neuron):
    page = visit(neuron, "phone", has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Next").tap()
    assert position(page) == 1
    page.locator("#n0").tap()
    assert position(page) == 0 and page.get_by_role("tooltip").is_visible()
    for button in page.get_by_role("button").all():
        if button.is_visible() and button.evaluate("b => b.tagName") == "BUTTON":
            assert button.bounding_box()["height"] >= 40


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_node_whose_turn_it_is_is_in_sight(visit, tmp_path, size):
    model = Sequential(Linear(2, 12), Tanh(), Linear(12, 12), Tanh(), Linear(12, 1))
    step_through((model([0.5, -0.5])[0] - 1.0) ** 2, tmp_path / "lesson.html", model=model)
    page = visit(tmp_path / "lesson.html", size)
    assert fits(page)
    for k in range(0, 155, 7):
        page.locator("#position").fill(str(k))
        if not page.locator(".node.current").count():
            continue
        node, frame = page.locator(".node.current").bounding_box(), page.locator("#graph").bounding_box()
        x, y = node["x"] + node["width"] / 2, node["y"] + node["height"] / 2
        assert frame["x"] < x < frame["x"] + frame["width"] and frame["y"] < y < frame["y"] + frame["height"]
    assert position(page) == 154


@pytest.mark.parametrize("size", ["desktop", "phone", "across", "enlarged"])
def test_step_and_picture_are_in_sight_at_once(visit, neuron, size):
    page = visit(neuron, size)
    for _ in range(STEPS - 2):
        page.keyboard.press("ArrowRight")
    assert fits(page) and violations(page) == []
    height = page.viewport_size["height"]
    for part in ("#steps .current h2", "#steps .current p:last-of-type", ".node.current"):
        box = page.locator(part).last.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, part
    frame = page.locator("#graph").bounding_box()
    assert min(height, frame["y"] + frame["height"]) - frame["y"] > 150


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_text(visit, tmp_path, name):
    x = Value(2.0, name)
    z = x * 3.0 + x
    z.name = name
    step_through(z, tmp_path / "lesson.html")
    page = visit(tmp_path / "lesson.html", "phone")
    page.keyboard.press("ArrowRight")
    assert fits(page)
    page.focus("#n0")
    lines = page.get_by_role("tooltip").locator("div").all_text_contents()
    plain = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800]", "\ufffd", re.sub(r"\s*[\r\n\t]+\s*", " ", name))
    plain = plain if plain.strip() else "v1"
    assert lines == [plain if len(name) <= 300 else "n" * 299 + "…", "data 2", "grad 0"]
    assert page.locator("script").count() == 2 and page.locator("#tip script, #steps script, svg script").count() == 0


LEFT = """([selector, letter]) => {
  const text = document.querySelector(selector).firstChild, range = new Range();
  range.setStart(text, text.data.indexOf(letter));
  range.setEnd(text, text.data.indexOf(letter) + 1);
  return range.getBoundingClientRect().left; }"""  # where a letter of a formula stands


def test_names_from_right_to_left_stand_in_the_order_of_the_formula(visit, tmp_path):
    z = Value(7.0, "אלף") - Value(2.0, "בית")
    step_through(z, tmp_path / "lesson.html")
    page = visit(tmp_path / "lesson.html")
    page.keyboard.press("ArrowRight")
    for formula in ("#steps .current code", "#n2 .formula"):
        left = [page.evaluate(LEFT, [formula, letter]) for letter in "א-ת"]
        assert left == sorted(left) and len({*left}) == 3


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_keeps_to_the_guidelines_for_accessible_pages(visit, neuron, size, scheme):
    page = visit(neuron, size, color_scheme=scheme)
    for _ in range(0, STEPS, 2):
        assert violations(page) == []
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
    assert dark == (scheme == "dark")


CONTRASTS = """() => [...document.querySelectorAll('.node text')].map(text => {
  const numbers = style => style.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255);
  const own = getComputedStyle(text), paper = getComputedStyle(text.parentNode.querySelector('.box')).fill;
  const back = numbers(paper), share = own.fillOpacity;
  const ink = numbers(own.fill).map((x, i) => x * share + back[i] * (1 - share));
  const light = c => [0.2126, 0.7152, 0.0722].reduce(
    (sum, part, i) => sum + part * (c[i] <= 0.04045 ? c[i] / 12.92 : ((c[i] + 0.055) / 1.055) ** 2.4), 0.05);
  const [dark, bright] = [light(ink), light(back)].sort((a, b) => a - b);
  return bright / dark; })"""  # of the letters in the boxes, as WCAG 2 defines it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_to_come_can_be_read(visit, neuron, scheme):
    page = visit(neuron, color_scheme=scheme)
    assert page.locator(".node.todo .formula").count() == 3
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) == 21 and min(contrasts) >= 4.5


def test_without_scripts_all_steps_and_the_end_are_there(visit, neuron):
    page = visit(neuron, java_script_enabled=False)
    assert all(item.is_visible() for item in page.locator("#steps > li").all())
    assert not page.get_by_role("button", name="Play").is_visible()
    assert shown(page) == expected(STEPS - 1)


def test_paper_shows_all_steps_and_the_end_whatever_was_on_screen(visit, neuron):
    page = visit(neuron, color_scheme="dark")
    page.keyboard.press("ArrowRight")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(item.is_visible() for item in page.locator("#steps > li").all())
    assert not page.get_by_role("button", name="Play").is_visible()
    assert shown(page) == expected(STEPS - 1)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert (position(page), shown(page)) == (1, expected(1))


def of_width(n):
    """A step of n numbers, and a picture that is tall where n is large."""
    return lambda: total([Value(0.1 * i, f"x{i}").tanh() for i in range(n)])


def a_chain():
    z = Value(0.5, "x")
    for _ in range(100):
        z = (z * 0.9 + 0.1).tanh()
    return z


@pytest.mark.parametrize(
    ("made", "readable"),
    [(of_width(3), True), (of_width(11), True), (of_width(25), False), (of_width(150), False), (a_chain, False)],
)
def test_on_paper_nothing_is_larger_than_a_sheet_or_too_small_to_read(visit, tmp_path, made, readable):
    step_through(made(), tmp_path / "lesson.html", max_nodes=None)
    page = visit(tmp_path / "lesson.html")
    picture, instead = page.locator("#graph svg"), page.get_by_text("The picture is too large for a sheet of paper.")
    assert picture.is_visible() and not instead.is_visible()
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 within the browser's margins, in CSS pixels
    page.emulate_media(media="print")
    whole = "[...document.querySelectorAll('main *')].filter(e => getComputedStyle(e).breakInside === 'avoid')"
    heights = page.evaluate(f"{whole}.map(e => e.getBoundingClientRect().height)")
    assert len(heights) > 3 and max(heights) <= 1047
    assert (picture.is_visible(), instead.is_visible()) == (readable, not readable)
    if readable:
        box, steps = picture.bounding_box(), page.locator("#steps").bounding_box()
        assert box["width"] <= 718 and box["y"] + box["height"] <= 1047  # on the first sheet, with the title
        assert box["y"] + box["height"] <= steps["y"]
        letters = page.evaluate(
            "[...document.querySelectorAll('svg text')].map(t => parseFloat(getComputedStyle(t).fontSize))"
        )
        scale = box["width"] / page.evaluate("document.querySelector('svg').viewBox.baseVal.width")
        assert min(letters) * scale >= 7.8  # 6 points
    else:
        assert instead.bounding_box()["y"] < page.locator("#steps").bounding_box()["y"]
