package simulator

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
)

// The plot's size, and what it keeps free around the points.
const (
	plotWidth, plotHeight = 900, 560
	plotMargin            = 70
)

// Plot draws cost against the wait's 99th percentile as an SVG image: each policy a point, the nearer to the lower left the better.
func Plot(out io.Writer, title string, results []Result) error {
	least, most := extent(results, func(r Result) float64 { return r.Cost.Seconds() })
	quick, slow := extent(results, func(r Result) float64 { return wait(r).Seconds() })
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="30" font-size="16">%s</text>`, plotMargin, html.EscapeString(title))
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`, plotMargin, plotMargin, plotHeight-plotMargin, plotWidth-plotMargin)
	fmt.Fprintf(&b, `<text x="%d" y="%d">cost: %s to %s of workers</text>`, plotMargin, plotHeight-plotMargin+30, span(least), span(most))
	fmt.Fprintf(&b, `<text x="%d" y="%d">wait, p99: %s to %s</text>`, plotMargin, plotMargin-10, span(quick), span(slow))
	for _, r := range results {
		x := plotMargin + position(r.Cost.Seconds(), least, most)*(plotWidth-2*plotMargin)
		y := plotHeight - plotMargin - position(wait(r).Seconds(), quick, slow)*(plotHeight-2*plotMargin)
		colour := "#c33"
		if r.Family == family {
			colour = "#06c"
		}
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="5" fill="%s"/><text x="%.1f" y="%.1f" fill="%s">%s</text>`, x, y, colour, x+8, y+4, colour, html.EscapeString(r.Policy))
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// wait is the plotted one: on a logarithmic axis there is no zero.
func wait(r Result) time.Duration { return max(r.P99, time.Millisecond) }

func extent(results []Result, value func(Result) float64) (least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, r := range results {
		least, most = min(least, value(r)), max(most, value(r))
	}
	return max(least, 1e-3), max(most, 1e-3)
}

// position is where a value lies between two others on a logarithmic axis, 0 to 1.
func position(value, least, most float64) float64 {
	if most <= least {
		return 0
	}
	return math.Log(max(value, least)/least) / math.Log(most/least)
}

func span(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}
