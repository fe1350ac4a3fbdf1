package spec

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration written as people write it in HCL and JSON: "90s", "1h30m".
type Duration time.Duration

// Std is the standard library's form.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the shortest form that parses back, such as "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the String form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write a number with a unit, such as \"90s\" or \"1h30m\"", text)
	}
	*d = Duration(parsed)
	return nil
}

// UnmarshalJSON reads a string; a bare number is refused, because its unit would be a guess.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("%s is not a duration; write a string with a unit, such as \"90s\"", data)
	}
	return d.UnmarshalText([]byte(text))
}
