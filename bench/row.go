package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// row is one figure of the report. For times p99 is the 99th percentile; for rates, which are better high, the slowest round.
type row struct {
	Name string  `json:"name"`
	Unit string  `json:"unit"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	// Floor is what the parts beneath cost in the same run, in the same unit; Ratio is P50 over it. 0 where there is none.
	Floor float64 `json:"floor"`
	Ratio float64 `json:"ratio"`
	N     int     `json:"n"`
}

// samples are durations of one kind.
type samples []time.Duration

// at is a quantile in ms.
func (s samples) at(quantile float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return millis(sorted[min(int(quantile*float64(len(sorted))), len(sorted)-1)])
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// times makes a row of durations over a floor in ms; 0 for none.
func times(name string, s samples, floor float64) row {
	return over(row{Name: name, Unit: "ms", P50: s.at(0.5), P99: s.at(0.99), N: len(s)}, floor)
}

// values makes a row of other figures, such as rates by round; worst is the one that stands in P99's place.
func values(name, unit string, list []float64, worst func([]float64) float64, floor float64) row {
	if len(list) == 0 {
		return row{Name: name, Unit: unit}
	}
	return over(row{Name: name, Unit: unit, P50: median(list), P99: worst(list), N: len(list)}, floor)
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

func over(r row, floor float64) row {
	if floor > 0 {
		r.Floor, r.Ratio = floor, r.P50/floor
	}
	return r
}

// report collects the rows in their order.
type report struct{ rows []row }

func (r *report) add(rows ...row) { r.rows = append(r.rows, rows...) }

func (r *report) find(name string) row {
	for _, row := range r.rows {
		if row.Name == name {
			return row
		}
	}
	return row{}
}

func (r *report) print(out io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	t.SetStyle(style)
	t.AppendHeader(table.Row{"name", "unit", "p50", "p99", "floor", "ratio", "n"})
	var columns []table.ColumnConfig
	for _, name := range []string{"p50", "p99", "floor", "ratio", "n"} {
		columns = append(columns, table.ColumnConfig{Name: name, Align: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	for _, row := range r.rows {
		t.AppendRow(table.Row{row.Name, row.Unit, number(row.P50), number(row.P99), number(row.Floor), number(row.Ratio), row.N})
	}
	t.Render()
}

// number writes three digits that count; nothing for no figure.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
