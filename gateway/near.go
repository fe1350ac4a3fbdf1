package gateway

import (
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// maxNear is how many similar names an error suggests.
const maxNear = 5

// near picks the names that somebody may have meant, the nearest first.
func near(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	lower := strings.ToLower(name)
	for _, other := range known {
		distance := levenshtein.ComputeDistance(lower, strings.ToLower(other))
		if distance <= max(2, len(name)/3) {
			found = append(found, candidate{other, distance})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	names := make([]string, 0, min(len(found), maxNear))
	for _, c := range found[:min(len(found), maxNear)] {
		names = append(names, c.name)
	}
	return names
}
