package policy

import (
	"maps"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// buckets is into how many parts a period is divided: five minutes each for a day.
const buckets = 288

// unknownStart is the time that workers are started ahead by while no start was measured.
const unknownStart = 10 * time.Second

// periods remembers the highest need of each part of the last two periods, by the number of the part since the epoch.
type periods struct{ peaks map[int64]int }

// observe takes the need of this moment. The periods given are not changed.
func (p periods) observe(scaling spec.Scaling, workers int, now time.Time) periods {
	if scaling.PredictPeriod <= 0 {
		return periods{}
	}
	part := partOf(scaling, now)
	if peak, known := p.peaks[part]; known && peak >= workers {
		return p
	}
	peaks := maps.Clone(p.peaks)
	if peaks == nil {
		peaks = make(map[int64]int)
	}
	peaks[part] = workers
	maps.DeleteFunc(peaks, func(other int64, _ int) bool { return other < part-2*buckets-1 || other > part })
	return periods{peaks}
}

// predict is the need that the time from now until a worker started now would be ready had in the periods before: the lower of
// two where both are known, so that a burst that came once is not waited for again.
func (p periods) predict(scaling spec.Scaling, start time.Duration, now time.Time) int {
	if scaling.PredictPeriod <= 0 {
		return 0
	}
	if start <= 0 {
		start = unknownStart
	}
	highest := 0
	for part := partOf(scaling, now); part <= partOf(scaling, now.Add(start)); part++ {
		peak, known := p.peaks[part-buckets]
		if before, also := p.peaks[part-2*buckets]; known && also {
			peak = min(peak, before)
		}
		highest = max(highest, peak)
	}
	return highest
}

func partOf(scaling spec.Scaling, at time.Time) int64 {
	return at.UnixNano() / (int64(scaling.PredictPeriod) / buckets)
}
