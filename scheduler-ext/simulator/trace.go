// Package simulator runs scaling policies, the real one among them, against arrivals of calls with the delays of Nomad and of
// starts modelled, and tells what they cost and how long calls waited.
package simulator

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Call is one arrival.
type Call struct {
	At, Length time.Duration
}

// Trace is the arrivals of each function, each sorted by time.
type Trace [][]Call

// Calls is how many there are.
func (t Trace) Calls() int {
	sum := 0
	for _, calls := range t {
		sum += len(calls)
	}
	return sum
}

// Shape makes traces.
type Shape struct {
	Name, About string
	make        func(random *rand.Rand, calls int, length time.Duration) []Call
}

// meanService is the mean length of the generated calls.
const meanService = time.Second

// Shapes are those that Generate knows.
func Shapes() []Shape {
	return []Shape{
		{"constant", "calls at random times, the same rate throughout", constant},
		{"bursty", "many calls at once, then none for long", bursty},
		{"diurnal", "a rate that rises and falls with the time of day", diurnal},
		{"rare", "few calls, hours apart for most functions, as most functions of public traces", rare},
		{"timer", "several calls exactly every so often, as timers make them", timer},
		{"batch", "all calls at once, as maps make them", batch},
	}
}

// Generate makes a trace of the shape: so many calls over so many functions within the length. The same seed makes the same.
// Functions differ much in their rates, as in public traces: a few have most of the calls.
func Generate(shape string, functions, calls int, length time.Duration, seed uint64) (Trace, error) {
	at := slices.IndexFunc(Shapes(), func(s Shape) bool { return s.Name == shape })
	if at < 0 {
		var names []string
		for _, s := range Shapes() {
			names = append(names, s.Name)
		}
		return nil, fmt.Errorf("shape %q: use one of %s", shape, strings.Join(names, ", "))
	}
	random := rand.New(rand.NewPCG(seed, 1))
	weights := make([]float64, functions)
	sum := 0.0
	for i := range weights {
		weights[i] = math.Exp(1.5 * random.NormFloat64())
		sum += weights[i]
	}
	trace := make(Trace, functions)
	left := calls
	for i := range trace {
		count := int(math.Round(weights[i] / sum * float64(left)))
		sum -= weights[i]
		left -= count
		trace[i] = Shapes()[at].make(random, count, length)
		slices.SortFunc(trace[i], func(a, b Call) int { return cmp.Compare(a.At, b.At) })
	}
	return trace, nil
}

// service draws a call's length: log-normal, as measured in public traces, with a mean of a second.
func service(random *rand.Rand) time.Duration {
	const sigma = 1.0
	seconds := math.Exp(sigma*random.NormFloat64() - sigma*sigma/2)
	return max(time.Duration(seconds*float64(meanService)), time.Millisecond)
}

func uniform(random *rand.Rand, length time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(length)))
}

func constant(random *rand.Rand, calls int, length time.Duration) []Call {
	list := make([]Call, calls)
	for i := range list {
		list[i] = Call{uniform(random, length), service(random)}
	}
	return list
}

func bursty(random *rand.Rand, calls int, length time.Duration) []Call {
	var list []Call
	for len(list) < calls {
		at := uniform(random, length)
		for range min(1+random.IntN(40), calls-len(list)) {
			list = append(list, Call{at + uniform(random, 2*time.Second), service(random)})
		}
	}
	return list
}

func diurnal(random *rand.Rand, calls int, length time.Duration) []Call {
	list := make([]Call, 0, calls)
	for len(list) < calls {
		at := uniform(random, length)
		if day := 2 * math.Pi * float64(at) / float64(length/2); random.Float64() < (1-math.Cos(day))/2 {
			list = append(list, Call{at, service(random)})
		}
	}
	return list
}

func rare(random *rand.Rand, calls int, length time.Duration) []Call {
	var list []Call
	for len(list) < calls { // a visit is a few calls, one after another
		at := uniform(random, length)
		for range min(1+random.IntN(4), calls-len(list)) {
			list = append(list, Call{at, service(random)})
			at += time.Duration(random.ExpFloat64() * float64(3*time.Second))
		}
	}
	return list
}

func timer(random *rand.Rand, calls int, length time.Duration) []Call {
	each := 1 + random.IntN(8)
	ticks := max(calls/each, 1)
	every, begin := length/time.Duration(ticks), uniform(random, length/time.Duration(ticks)+1)
	var list []Call
	for tick := range ticks {
		for range each {
			list = append(list, Call{begin + time.Duration(tick)*every, service(random)})
		}
	}
	return list[:min(calls, len(list))]
}

func batch(random *rand.Rand, calls int, length time.Duration) []Call {
	at := uniform(random, length/2)
	list := make([]Call, calls)
	for i := range list {
		list[i] = Call{at, service(random)}
	}
	return list
}

// Read reads recorded arrivals: lines of function, seconds since the beginning, and the call's length in seconds, with commas
// between. The error names the line.
func Read(in io.Reader) (Trace, error) {
	var trace Trace
	known := make(map[string]int)
	lines := bufio.NewScanner(in)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ",")
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d: %q: write FUNCTION,SECONDS,SECONDS", number, line)
		}
		at, err := seconds(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: time: %w", number, err)
		}
		length, err := seconds(fields[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: length: %w", number, err)
		}
		index, ok := known[fields[0]]
		if !ok {
			index = len(trace)
			known[fields[0]] = index
			trace = append(trace, nil)
		}
		trace[index] = append(trace[index], Call{at, length})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	for _, calls := range trace {
		slices.SortStableFunc(calls, func(a, b Call) int { return cmp.Compare(a.At, b.At) })
	}
	return trace, nil
}

// longest bounds what a record may say: a year.
const longest = 366 * 24 * 3600

func seconds(text string) (time.Duration, error) {
	value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(value >= 0 && value <= longest) { // written so that NaN fails too
		return 0, fmt.Errorf("%q: write seconds, 0 to a year, such as 12.5", text)
	}
	return time.Duration(value * float64(time.Second)), nil
}
