package index

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// BM25's usual constants: how soon more of a term stops counting, and how much long documents are held back (Robertson and
// Zaragoza, The Probabilistic Relevance Framework, 2009, section 3.4).
const (
	k1 = 1.2
	b  = 0.75
)

// Boosts beyond BM25: a symbol's own name, in full or in part, is what a query of a name means, and the public API comes
// before what is internal.
const (
	nameBoost   = 1000
	minorFactor = 0.6
)

// Hit is a symbol found.
type Hit struct {
	Symbol    string  `json:"symbol"`
	Package   string  `json:"package"`
	Kind      string  `json:"kind"`
	Signature string  `json:"signature"`
	Doc       string  `json:"doc,omitempty"`
	File      string  `json:"file"`
	Line      int     `json:"line"`
	Score     float64 `json:"score"`
}

// Search returns up to limit symbols, the best first, equal ones in the order of the source. It returns nil for a query
// without a term, and an empty list when nothing fits.
func (x *Index) Search(query string, limit int) []Hit {
	scores := make(map[uint32]float64)
	terms := 0
	words(query, func(term string) {
		terms++
		x.score(term, scores)
	})
	named := x.names[strings.ToLower(strings.TrimSpace(query))]
	if terms == 0 && len(named) == 0 {
		return nil
	}
	for id := range scores {
		if x.symbols[id].minor {
			scores[id] *= minorFactor
		}
	}
	for _, id := range named {
		boost := float64(nameBoost)
		if x.symbols[id].minor {
			boost *= minorFactor
		}
		scores[id] += boost
	}
	return x.hits(best(scores, limit), scores)
}

// score adds a term's part to the scores.
func (x *Index) score(term string, scores map[uint32]float64) {
	where, ok := x.terms[term]
	if !ok {
		return
	}
	list := x.postings[where.from:where.to]
	n, df := float64(len(x.symbols)), float64(len(list))
	idf := math.Log(1 + (n-df+0.5)/(df+0.5))
	for _, p := range list {
		tf := float64(p.weight)
		norm := k1 * (1 - b + b*float64(x.lengths[p.symbol])/x.average)
		scores[p.symbol] += idf * tf * (k1 + 1) / (tf + norm)
	}
}

// best picks the ids with the highest scores.
func best(scores map[uint32]float64, limit int) []uint32 {
	ids := make([]uint32, 0, limit+1)
	before := func(a, c uint32) int { return cmp.Or(cmp.Compare(scores[c], scores[a]), cmp.Compare(a, c)) }
	for id := range scores {
		if len(ids) == limit && before(id, ids[limit-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(ids, id, before)
		ids = slices.Insert(ids, at, id)
		ids = ids[:min(len(ids), limit)]
	}
	return ids
}

func (x *Index) hits(ids []uint32, scores map[uint32]float64) []Hit {
	hits := make([]Hit, 0, len(ids))
	for _, id := range ids {
		s := x.symbols[id]
		hits = append(hits, Hit{
			Symbol: s.name, Package: s.pkg, Kind: s.kind, Signature: s.signature, Doc: s.synopsis,
			File: "src/" + s.file, Line: int(s.line), Score: math.Round(scores[id]*1000) / 1000,
		})
	}
	return hits
}

// Names are the qualified names of the public symbols, in the order of the source.
func (x *Index) Names() []string {
	var names []string
	for _, s := range x.symbols {
		if !s.minor && s.kind != "package" {
			names = append(names, s.pkg[strings.LastIndexByte(s.pkg, '/')+1:]+"."+s.name)
		}
	}
	return names
}
