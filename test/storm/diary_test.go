package storm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// doubt is how long after a fault of those kinds two workers may have one call: it is given to another after 4 s without a word, and
// the first one may take its time until it hears that.
const doubt = 12 * time.Second

// attempt is one of a call, as the function itself tells it.
type attempt struct {
	worker     string
	number     int
	begin, end time.Time // end is zero where nobody knows
}

// readDiary reads what the functions wrote of themselves: the attempts of each call.
func (w *world) readDiary() (map[string][]attempt, error) {
	all := make(map[string][]attempt)
	for _, file := range glob(w.path("diary", "*")) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		worker := filepath.Base(file)
		running := make(map[string]int)
		for text := range strings.Lines(string(data)) {
			var entry struct {
				Call, What string
				Attempt    int
				At         int64
			}
			if err := json.Unmarshal([]byte(text), &entry); err != nil {
				return nil, fmt.Errorf("diary of %s: %q: %w", worker, text, err)
			}
			at, name := time.Unix(0, entry.At), fmt.Sprint(entry.Call, " ", entry.Attempt)
			if entry.What == "begin" {
				running[name] = len(all[entry.Call])
				all[entry.Call] = append(all[entry.Call], attempt{worker: worker, number: entry.Attempt, begin: at})
				continue
			}
			if i, ok := running[name]; ok {
				all[entry.Call][i].end = at
			}
		}
	}
	return all, nil
}

// checkDiary holds the diary against the outcomes: what is done ran at least once, and no two workers ran a call at once but near a
// fault that permits it. It counts the calls by their attempts.
func (t *traffic) checkDiary(diary map[string][]attempt, faults []trouble) (attempts tally, overlaps int) {
	attempts = make(tally)
	for id, a := range t.calls {
		runs := diary[id]
		if a.function == "thawed" {
			continue // a frozen function has no diary
		}
		if len(runs) == 0 && a.told != nil && a.told.Status == "done" {
			t.complain("%s call %s of %+v is done and never ran", a.way, id, a.in)
		}
		attempts[fmt.Sprintf("ran %d times", len(runs))]++
		slices.SortFunc(runs, func(a, b attempt) int { return a.begin.Compare(b.begin) })
		for i := 1; i < len(runs); i++ {
			before, after := runs[i-1], runs[i]
			if before.end.IsZero() || !after.begin.Before(before.end) || before.worker == after.worker {
				continue
			}
			overlaps++
			if !doubtful(faults, before.begin, after.begin) {
				t.complain("call %s ran at once in %+v and %+v", id, before, after)
			}
		}
	}
	return attempts, overlaps
}

// doubtful tells whether a fault that permits it happened while the first attempt ran, up to the second's begin.
func doubtful(faults []trouble, from, to time.Time) bool {
	for _, f := range faults {
		if slices.Contains(doubted, f.kind) && f.from.Before(to) && f.to.Add(doubt).After(from) {
			return true
		}
	}
	return false
}
