import pytest

from visaudio import licences


@pytest.mark.parametrize(
    ("several", "one"),
    [
        (["apache-2.0"], "apache-2.0"),
        (["mit", "apache-2.0", "cc0-1.0"], "apache-2.0"),
        (["apache-2.0", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["CC-BY-NC-4.0", "mit"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-nc-4.0", "cc-by-sa-4.0"], "cc-by-nc-4.0 AND cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "apple-amlr", "apache-2.0"], "apple-amlr AND cc-by-nc-4.0"),
        (["apple-amlr AND cc-by-nc-4.0", "cc-by-nc-4.0"], "apple-amlr AND cc-by-nc-4.0"),
        (["apache-2.0", ""], "unknown"),
        (["mit", "somebodys-own"], "somebodys-own"),
    ],
)
def test_the_strictest_holds(several, one):
    assert licences.combined(several) == one == licences.combined(several[::-1])
    assert all(licences.covers(one, licence) for licence in several)


def test_a_laxer_one_does_not_cover():
    assert not licences.covers("mit", "cc-by-nc-4.0")
    assert not licences.covers("cc-by-nc-4.0", "apple-amlr")
    assert licences.covers("cc-by-nc-sa-4.0", "cc-by-nc-4.0")


@pytest.mark.parametrize("licence", ["mit", "cc-by-nc-4.0", "apple-amlr AND cc-by-nc-4.0", "somebodys-own"])
def test_what_a_card_states_is_read_back(licence):
    header = licences.for_card(licence, "https://example.org")
    assert licences.of_card(header) == licence
    assert (header["license"] == "other") == (licence.count(" ") > 0 or licence.startswith("some"))
    assert ("license_link" in header) == (header["license"] == "other")


def test_cards_of_others():
    assert licences.of_card({}) == "unknown"
    assert licences.of_card({"license": ["mit", "cc-by-nc-4.0"]}) == "cc-by-nc-4.0"
    name = {"license": "other", "license_name": "apple-sample-code-license"}
    assert licences.of_card(name) == "apple-sample-code-license"
    assert licences.of_card({"license": "other"}) == "other"
