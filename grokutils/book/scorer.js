// Titles first: what a page is about counts more than how often it says a word.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 100,
  partialTitle: 60,
  term: 5,
  partialTerm: 2,
};
