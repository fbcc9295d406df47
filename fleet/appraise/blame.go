package appraise

import (
	"cmp"
	"fmt"
	"slices"

	"waxseal/measure"
)

// components turns the parts into components in boot order, and finds the
// culprits: what differs and holds nothing else that differs.
func (a *appraisal) components() []Component {
	parts := make([]*part, 0, len(a.parts))
	for _, p := range a.parts {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(x, y *part) int {
		return cmp.Or(cmp.Compare(a.position(x), a.position(y)), cmp.Compare(x.name, y.name))
	})
	out := make([]Component, 0, len(parts))
	first, earliest := -1, 0
	for i, p := range parts {
		c, position := a.component(p)
		if c.Result == Contraindicated && c.State != Follows && (first < 0 || position < earliest) {
			first, earliest = i, position
		}
		out = append(out, c)
	}
	if first >= 0 {
		out[first].FirstDiverging = true
	}
	return out
}

// position returns where in the boot the part first appears.
func (a *appraisal) position(p *part) int {
	if len(p.rows) == 0 {
		return a.end() + 1
	}
	return slices.MinFunc(p.rows, func(x, y row) int { return cmp.Compare(x.position, y.position) }).position
}

// component returns what a part has become, and the position of the first row
// that differs by itself.
func (a *appraisal) component(p *part) (Component, int) {
	c := Component{Name: p.name, Result: Affirming, State: Good, Note: p.note, Diff: p.diff}
	position := 0
	for _, r := range p.rows {
		c.Evidence = append(c.Evidence, r.Row)
		if !r.state.differs() {
			continue
		}
		culprit := a.culprit(p.name, r)
		switch {
		case culprit == "" && (c.Result == Affirming || c.State == Follows || r.position < position):
			c.State, c.Follows, position = r.state, "", r.position
		case culprit != "" && c.Result == Affirming:
			c.State, c.Follows = Follows, culprit
		}
		c.Result = Contraindicated
	}
	if c.Result == Affirming && !slices.ContainsFunc(p.rows, func(r row) bool { return r.state == Good }) {
		c.Result, c.State = mildest(p)
	}
	if p.dropped > 0 {
		c.Note = fmt.Sprintf("%d more measurements of the same kind", p.dropped)
	}
	return c, position
}

// culprit returns the name of what explains a row that differs, or "" if it
// differs by itself.
func (a *appraisal) culprit(name string, r row) string {
	visited := map[string]bool{name: true}
	if target := a.explained(r, visited); target != "" {
		return a.root(target, visited)
	}
	return ""
}

// root follows what explains name down to what differs by itself.
func (a *appraisal) root(name string, visited map[string]bool) string {
	for {
		visited[name] = true
		next := ""
		for _, r := range a.parts[name].rows {
			if !r.state.differs() {
				continue
			}
			if next = a.explained(r, visited); next == "" {
				return name
			}
		}
		name = next
	}
}

// explained returns a part that differs and explains r, if there is one that
// was not visited.
func (a *appraisal) explained(r row, visited map[string]bool) string {
	if r.culprit != "" && !visited[r.culprit] && a.differs(r.culprit) {
		return r.culprit
	}
	return a.held(r.contains, visited)
}

// held returns the first name that differs among names and what they hold.
func (a *appraisal) held(names []string, visited map[string]bool) string {
	for _, name := range names {
		name = measure.Subject(name)
		if visited[name] {
			continue
		}
		if a.differs(name) {
			return name
		}
		visited[name] = true
		if deeper := a.held(a.contains[name], visited); deeper != "" {
			return deeper
		}
	}
	return ""
}

func (a *appraisal) differs(name string) bool {
	p := a.parts[name]
	return p != nil && slices.ContainsFunc(p.rows, func(r row) bool { return r.state.differs() })
}

// mildest returns the result of a part in which nothing differs and nothing is
// good.
func mildest(p *part) (Result, State) {
	for _, state := range []State{Past, Noticed, NotCovered} {
		for _, r := range p.rows {
			if r.state == state {
				return state.beside(p.name), state
			}
		}
	}
	if len(p.rows) == 0 && p.name == coverageName {
		return None, NotCovered
	}
	if len(p.rows) == 0 && p.name != firmwareName {
		return None, Unverified
	}
	return None, Informational
}
