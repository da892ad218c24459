"""The search page in Chromium, opened from the disk: whole sentences, Chinese ones above all, find their page."""

import json
import pathlib
import re

import pytest

pytestmark = [pytest.mark.docs, pytest.mark.browser]
FIRST = """([queries]) => {
  const all = ranking.index(searchTexts);
  return queries.map(query => ranking.search(all, query).map(found => found.page.uri));
}"""
# By page what people might ask, first of all the title of its article; the same in Traditional characters; and what no page is about.
QUESTIONS = json.loads((pathlib.Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
NOWHERE, TRADITIONAL = QUESTIONS.pop("nowhere"), QUESTIONS.pop("traditional")


def plain(text: str) -> str:
    """Its letters and digits, which is what is compared."""
    return re.sub(r"[\W_]+", "", text).lower()


@pytest.mark.parametrize("wanted", QUESTIONS)
def test_questions_in_chinese_find_their_page_first(visit, wanted):
    found = visit("search.html").evaluate(FIRST, [QUESTIONS[wanted]])
    assert {query: pages[:1] for query, pages in zip(QUESTIONS[wanted], found, strict=True) if pages[:1] != [f"{wanted}.html"]} == {}


def test_questions_in_traditional_characters_find_the_same_page_first(visit):
    asked = {query: f"{wanted}.html" for wanted, queries in TRADITIONAL.items() for query in queries}
    found = visit("search.html").evaluate(FIRST, [list(asked)])
    assert len(asked) > 20 and dict(zip(asked, [pages[0] for pages in found], strict=True)) == asked


def test_traditional_characters_are_those_that_the_guide_could_be_asked_in(visit):
    page = visit("search.html?q=上聯")
    assert "上联" in page.locator("#search-results mark").all_inner_texts()
    simplified = page.evaluate("searchTexts.simplified")
    assert simplified["詢"] == "询" and "鱷" not in simplified and not simplified.keys() & set(simplified.values())


def test_a_sentence_finds_a_page_that_holds_it(visit):
    page = visit("search.html")
    texts = page.evaluate("searchTexts.pages")
    sentences = {}
    for each in texts:
        for section in each["sections"]:
            for sentence in re.findall(r"[^。.!?！？;；:：]{25,150}(?=[。.!?！？])", section["text"])[:3]:
                sentences.setdefault(sentence, each["uri"])
    assert len(sentences) > 300
    found = page.evaluate(FIRST, [list(sentences)])
    holds = {each["uri"]: plain(" ".join(section["text"] for section in each["sections"])) for each in texts}
    assert [query for query, pages in zip(sentences, found, strict=True) if not pages or plain(query) not in holds[pages[0]]] == []


def test_what_stands_nowhere_is_not_found(visit):
    assert visit("search.html").evaluate(FIRST, [NOWHERE]) == [[]] * len(NOWHERE)
    page = visit("search.html?q=zzqxvw")
    assert page.locator("#search-results li").count() == 0
    assert "没有找到" in page.locator("#search-state").inner_text()


def test_synonyms_stand_in_for_whole_words_of_a_question(visit):
    script = """query => {
      const all = ranking.index(searchTexts);
      return ranking.read(all, query).replaced.map(each => query.slice(each.begin, each.end));
    }"""
    page = visit("search.html")
    assert page.evaluate(script, "TensorFlow training on CUDA") == []
    assert page.evaluate(script, "用flow修补照片") == ["照片", "flow"]


def test_a_search_shows_marked_excerpts_with_links_into_sections(visit):
    page = visit("search.html?q=给出上联让机器对下联")
    first = page.locator("#search-results li").first
    assert first.locator("h2 a").get_attribute("href") == "couplets.html"
    assert "上联" in " ".join(first.locator("mark").all_inner_texts())
    first.locator("h3 a").first.click()
    page.wait_for_url("**/couplets.html#*")
    page.locator("h1").wait_for()  # until it can be seen


def test_the_box_of_every_page_leads_to_the_search_and_typing_searches_anew(visit):
    page = visit("reference/rules.html", width=1440)
    page.locator(".sidebar-search").fill("朗之万动力学")
    page.locator(".sidebar-search").press("Enter")
    page.wait_for_url("**/search.html?*")
    assert page.locator("#search-results h2 a").first.get_attribute("href") == "energies.html"
    page.locator("#search-query").fill("no_repeat_ngram")
    page.wait_for_function("document.querySelector('#search-results h2 a')?.getAttribute('href') !== 'energies.html'")
    assert "reference/rules.html" in [link.get_attribute("href") for link in page.locator("#search-results h2 a").all()]


def test_a_query_is_text_and_nothing_else(visit):
    page = visit("search.html?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%20top_p%20typical_p%20min_p%20top_k%20no_repeat_ngram")
    assert page.locator("#search-results li").count() and page.locator("#search-results img").count() == 0
