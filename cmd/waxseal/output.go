package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"waxseal/fleet/challenge"
)

// outputFormat is the value of --output.
type outputFormat string

const (
	tableFormat outputFormat = "table"
	jsonFormat  outputFormat = "json"
)

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *outputFormat) Type() string { return "FORMAT" }

// Set implements pflag.Value.
func (f *outputFormat) Set(s string) error {
	switch outputFormat(s) {
	case tableFormat, jsonFormat:
		*f = outputFormat(s)
		return nil
	}
	return fmt.Errorf("%q is neither table nor json", s)
}

// show prints a result and returns its exit code.
func (a *app) show(format outputFormat, r challenge.Result) error {
	if format == jsonFormat {
		b, err := r.Verdict.Encode()
		if err != nil {
			return err
		}
		if _, err := a.stdout.Write(b); err != nil {
			return err
		}
		for _, note := range r.Notes {
			fmt.Fprintf(a.stderr, "waxseal: note: %s\n", clean(note))
		}
		return verdictCode(r)
	}
	t := table{paint: paintFor(a.stdout)}
	t.result(r)
	if _, err := io.WriteString(a.stdout, t.String()); err != nil {
		return err
	}
	return verdictCode(r)
}

// progress shows what is being done on a terminal, in one line that the next
// call replaces; an empty step clears it.
func (a *app) progress(step string) {
	if isTerminal(a.stderr) {
		fmt.Fprintf(a.stderr, "\r\x1b[K%s", clean(step))
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// clean writes out what could steer a terminal or hide text, and leaves
// everything else as it is. Every text that is not ours goes through it.
func clean(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}
