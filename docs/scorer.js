// The order of search results: pages that answer a question first, the history of the project last.
const FIRST = /^(faq|howto|tutorial|testing|cheatsheet|security)/;
const LAST = /^(decisions|changelog|releasing|benchmarks)/;

var Scorer = {
    score: ([page, , , , score]) => score + (FIRST.test(page) ? 4 : LAST.test(page) ? -8 : 0),

    // Sphinx's own numbers: a name of the reference, a title, a word of a page.
    objNameMatch: 11,
    objPartialMatch: 6,
    objPrio: {0: 15, 1: 5, 2: -5},
    objPrioDefault: 0,
    title: 15,
    partialTitle: 7,
    term: 5,
    partialTerm: 2,
};
