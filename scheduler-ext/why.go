package autoscaler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Why is what the autoscaler sees of a function, what it wants, and what holds it back.
type Why struct {
	Namespace string `json:"namespace"`
	App       string `json:"app"`
	Function  string `json:"function"`
	// Depth is the number of calls waiting and running, Need the workers that they ask for, Want the workers that there should
	// be, Count those that Nomad was told to run; Ready of them take calls, Resting are about to go.
	Depth   int64  `json:"depth"`
	Need    int    `json:"need"`
	Want    int    `json:"want"`
	Count   int    `json:"count"`
	Ready   int    `json:"ready"`
	Resting int    `json:"resting"`
	Reason  string `json:"reason"`
	// Held says in words what keeps the count from the need; empty when nothing does.
	Held []string `json:"held"`
	// Failures counts the starts that failed since the last one that did not; Failure says why the last one did.
	Failures int    `json:"failures,omitempty"`
	Failure  string `json:"failure,omitempty"`
	// Service and Start are the measured times of a call and of a start, empty while not known.
	Service spec.Duration `json:"service,omitempty"`
	Start   spec.Duration `json:"start,omitempty"`
	// Groups are the counts by group, where there are several.
	Groups map[string]int `json:"groups,omitempty"`
	// Policy is the scaling policy in force.
	Policy spec.Scaling `json:"policy"`
	// Lease is that of the instance which answers.
	Lease uint64 `json:"lease"`
}

// question is asked of the loop.
type question struct {
	function queue.Function
	answer   chan whyAnswer // with room for one
}

// whyAnswer is what goes over NATS.
type whyAnswer struct {
	Why   *Why   `json:"why,omitempty"`
	Error string `json:"error,omitempty"`
}

// whyWait bounds how long an answer may take.
const whyWait = 3 * time.Second

// hearWhy answers a question, if this instance acts.
func (a *Autoscaler) hearWhy(ctx context.Context, msg *nats.Msg) {
	function, ok := queue.ParseFunction(msg.Subject)
	if _, acts := a.scaler.leader.Lease(); !acts || !ok {
		return
	}
	q := question{function, make(chan whyAnswer, 1)}
	select {
	case a.scaler.asked <- q:
	case <-ctx.Done():
		return
	}
	data, err := json.Marshal(<-q.answer)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		a.log.Warn().Err(err).Msg("answer why")
	}
}

// why is asked by the loop of itself.
func (a *scaler) why(function queue.Function) whyAnswer {
	entry, known := a.functions.Entry(function)
	if !known {
		return whyAnswer{Error: fmt.Sprintf("no function %s: `freshet ps` lists those there are", function)}
	}
	lease, _ := a.leader.Lease()
	view := a.fleet.View(function)
	w := Why{
		Namespace: function.Namespace, App: function.App, Function: function.Name, Count: entry.Count, Want: entry.Count,
		Ready: view.Ready, Resting: view.Resting, Service: rounded(view.Service), Start: rounded(view.Start),
		Reason: "nobody calls it", Held: []string{}, Policy: entry.Spec.Scaling, Lease: lease.Index,
		Failures: view.Failures, Failure: view.Failure,
	}
	if entry.Err != nil {
		w.Held = append(w.Held, "the job is wrong, so nothing is scaled: "+entry.Err.Error())
	}
	if entry.Policy != nil {
		w.Held = append(w.Held, entry.Policy.Error()+"; the last good one is")
	}
	if s, ok := a.states[function]; ok {
		w.Depth, w.Need, w.Want, w.Count = s.depth, s.decision.Need, s.decision.Count, s.count(entry)
		w.Reason = cmp.Or(s.decision.Reason, w.Reason)
		w.Held = append(w.Held, s.held(entry)...)
		if len(entry.Groups) > 1 {
			w.Groups = make(map[string]int)
			for _, group := range entry.Groups {
				w.Groups[group.Name] = s.countOf(entry, group)
			}
		}
	}
	return whyAnswer{Why: &w}
}

// held is what keeps a function's count from its need.
func (s *state) held(entry jobs.Entry) []string {
	held := slices.Clone(s.decision.Held)
	if s.quotaBy != "" {
		held = append(held, s.quotaBy)
	}
	for _, group := range slices.Sorted(maps.Keys(s.unplaced)) {
		held = append(held, fmt.Sprintf("Nomad has no place for %d workers of group %s: %s", s.unplaced[group], group, s.missing))
	}
	if s.refused != "" {
		held = append(held, fmt.Sprintf("Nomad refused; trying again: %s", s.refused))
	}
	if s.shrink != nil {
		waits := 0
		for _, v := range s.shrink.victims {
			if !v.settled {
				waits++
			}
		}
		held = append(held, fmt.Sprintf("%d workers that are to go end their calls first", waits))
	}
	if s.decision.Need > entry.Spec.Scaling.Max {
		held = append(held, fmt.Sprintf("scaling.max is %d", entry.Spec.Scaling.Max))
	}
	return held
}

// handleWhy asks the instance that acts, which may be this one.
func (a *Autoscaler) handleWhy(w http.ResponseWriter, r *http.Request) {
	namespace := cmp.Or(r.URL.Query().Get("namespace"), spec.DefaultNamespace)
	function := queue.Function{Namespace: namespace, App: r.PathValue("app"), Name: r.PathValue("function")}
	if !spec.ValidName(function.Namespace) || !spec.ValidName(function.App) || !spec.ValidFunctionName(function.Name) {
		answer(w, http.StatusBadRequest, whyAnswer{Error: "a name is wrong: write APP/FUNCTION with letters, digits, - and _"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), whyWait)
	defer cancel()
	msg, err := a.nc.RequestWithContext(ctx, function.WhySubject(), nil)
	if err != nil {
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("no autoscaler acts at the moment; try again")
		}
		answer(w, http.StatusServiceUnavailable, whyAnswer{Error: err.Error()})
		return
	}
	var reply whyAnswer
	if err := json.Unmarshal(msg.Data, &reply); err != nil {
		answer(w, http.StatusBadGateway, whyAnswer{Error: "the answer cannot be read: " + err.Error()})
		return
	}
	if reply.Error != "" {
		answer(w, http.StatusNotFound, reply)
		return
	}
	answer(w, http.StatusOK, reply.Why)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that left does not care
}

// policyReported makes a wrong policy or job known once: in an event and in a metric.
func (a *scaler) policyReported(function queue.Function, wrong error) {
	if _, acts := a.leader.Lease(); !acts {
		return
	}
	said := ""
	if wrong != nil {
		said = wrong.Error()
	}
	if a.wrong[function] == said {
		return
	}
	a.metrics.policy(function, wrong != nil)
	if wrong == nil {
		delete(a.wrong, function)
		return
	}
	a.wrong[function] = said
	data, err := queue.Event{Time: time.Now(), Kind: queue.EventPolicyWrong, Reason: said}.Encode()
	if err == nil {
		err = a.nc.Publish(function.EventsSubject("autoscaler"), data)
	}
	if err != nil {
		a.log.Warn().Err(err).Msg("publish event")
	}
}

func rounded(d time.Duration) spec.Duration { return spec.Duration(d.Round(time.Millisecond)) }
