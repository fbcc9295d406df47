package mirror

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"waxseal/measure/authorised"
)

// A case is a file that says what was seen and what is to come of it: see
// testdata/case/mirred.txtar.
type judged struct {
	ports   []string
	near    []string
	allowed authorised.Set
	steps   []step
	want    string
}

type step struct {
	at  time.Duration
	see *Observation // nil: only the time
}

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func readCase(t *testing.T, path string) judged {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c judged
	for _, f := range archive.Files {
		switch f.Name {
		case "ports":
			c.ports = strings.Fields(string(f.Data))
		case "seen":
			for line := range strings.Lines(string(f.Data)) {
				if strings.TrimSpace(line) != "" {
					c.steps = append(c.steps, readStep(t, line))
				}
			}
		case "near":
			c.near = strings.Fields(string(f.Data))
		case "authorised":
			c.allowed = readAuthorised(t, string(f.Data))
		case "want":
			c.want = string(f.Data)
		default:
			t.Fatalf("%s: what is %q?", path, f.Name)
		}
	}
	return c
}

var words = regexp.MustCompile(`[^\s"=]+="[^"]*"|\S+`)

// readStep reads a line such as: 12ms duplicate in=r0 out=r2 x3 by tc-egress.
func readStep(t *testing.T, line string) step {
	t.Helper()
	fields := words.FindAllString(line, -1)
	at, err := time.ParseDuration(fields[0])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if fields[1] == "nothing" {
		return step{at: at}
	}
	o := Observation{Kind: Kind(fields[1]), Time: start.Add(at), Detector: "test"}
	for i, word := range fields[2:] {
		key, value, _ := strings.Cut(word, "=")
		value = strings.Trim(value, `"`)
		number, _ := strconv.Atoi(strings.TrimPrefix(value, "1/"))
		switch key {
		case "by":
			o.Detector = fields[2+i+1]
			return step{at, &o}
		case "in":
			o.In = value
		case "out":
			o.Out = value
		case "copy":
			o.Copy = value
		case "fib":
			o.FIB = value
		case "encap":
			o.Encap = value
		case "inner":
			o.Inner.Source = netip.MustParseAddr(value)
		case "outer":
			o.Outer.Destination = netip.MustParseAddr(value)
		case "vlan":
			o.Inner.VLAN = uint16(number)
		case "count":
			o.Count = uint64(number)
		case "sample":
			o.Sample = uint32(number)
		case "netns":
			o.Netns = value
		case "subject":
			o.Subject = value
		case "cause":
			o.Cause = value
		case "target":
			o.Target = value
		case "detail":
			o.Detail = value
		case "pid":
			o.Process.PID = number
		case "comm":
			o.Process.Comm = value
		case "gone":
			o.Gone = true
		case "baseline":
			o.Baseline = true
		case "harmless":
			o.Harmless = true
		default:
			t.Fatalf("%q: what is %q?", line, word)
		}
	}
	return step{at, &o}
}

// run judges the steps and returns the last state of each incident.
func (c judged) run(steps []step) []Incident {
	j := NewJudge(Config{Ports: c.ports, Authorised: c.allowed})
	last := map[string]Incident{}
	keep := func(list []Incident) {
		for _, in := range list {
			last[in.ID] = in
		}
	}
	for _, netns := range c.near {
		keep(j.Near(netns))
	}
	for _, s := range steps {
		if s.see == nil {
			keep(j.Tick(start.Add(s.at)))
			continue
		}
		keep(j.Observe(*s.see))
	}
	keep(j.Tick(j.now.Add(2 * time.Second)))
	if len(steps) == 0 {
		return nil
	}
	var out []Incident
	for _, in := range last {
		if !strings.HasPrefix(in.Cause, "part of ") {
			out = append(out, in)
		}
	}
	slices.SortFunc(out, func(a, b Incident) int { return strings.Compare(summary(a), summary(b)) })
	return out
}

// summary is an incident as a case wants it.
func summary(in Incident) string {
	s := fmt.Sprintf("%s %s %s [%s] %s", in.Severity, in.Kind, in.State, strings.Join(in.Ports, " "), in.Cause)
	if in.Authorised != "" {
		s += ", authorised: " + in.Authorised
	}
	if in.Count > 0 {
		s += fmt.Sprintf(" (%d)", in.Count)
	}
	return s
}

func summaries(list []Incident) string {
	var b strings.Builder
	for _, in := range list {
		b.WriteString(summary(in) + "\n")
	}
	return b.String()
}

func TestCasesAreJudgedAsWanted(t *testing.T) {
	eachCase(t, func(t *testing.T, c judged) {
		if got := summaries(c.run(c.steps)); got != c.want {
			t.Errorf("got\n%swant\n%s", got, c.want)
		}
	})
}

func TestTheOrderOfObservationsDoesNotMatter(t *testing.T) {
	eachCase(t, func(t *testing.T, c judged) {
		ticks := slices.ContainsFunc(c.steps, func(s step) bool { return s.see == nil || s.see.Gone })
		if ticks {
			return // a case that tells of an end has an order
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			steps := slices.Clone(c.steps)
			random.Shuffle(len(steps), func(a, b int) { steps[a], steps[b] = steps[b], steps[a] })
			if got := summaries(c.run(steps)); got != c.want {
				t.Fatalf("%v\ngot\n%swant\n%s", steps, got, c.want)
			}
		}
	})
}

func eachCase(t *testing.T, check func(*testing.T, judged)) {
	paths, err := filepath.Glob("testdata/case/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { check(t, readCase(t, path)) })
	}
}
