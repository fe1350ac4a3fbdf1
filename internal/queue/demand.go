package queue

import "strconv"

// maxDemand bounds what a hint may say: nobody has so many requests.
const maxDemand = 1_000_000

// Demand is what a gateway says on a function's DemandSubject when requests wait there that never come to the queue.
func Demand(waiting int) []byte { return strconv.AppendInt(nil, int64(waiting), 10) }

// ParseDemand is how many such requests wait; 0 for the hint of a call.
func ParseDemand(data []byte) int {
	waiting, err := strconv.Atoi(string(data))
	if err != nil {
		return 0
	}
	return min(max(waiting, 0), maxDemand)
}
