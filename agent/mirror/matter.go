package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// matter is an incident while it is judged: a fact that nothing explains, and
// all that it explains.
type matter struct {
	id      string
	number  int
	root    *fact
	facts   []*fact
	opened  time.Time
	changed bool     // it has other facts than when it was judged last
	lively  bool     // time alone may change it
	past    Incident // what was told of it before it was opened again
	told    Incident // as it was last reported; zero: never
	toldAs  string   // what of that people want to know
}

// regroup sorts the facts into matters, and returns those that became part of
// another one.
func (j *Judge) regroup() (absorbed []*matter) {
	var roots []*fact
	groups := map[*fact][]*fact{}
	for _, f := range j.order {
		r := f
		for r.parent != nil {
			r = r.parent
		}
		if groups[r] == nil {
			roots = append(roots, r)
		}
		groups[r] = append(groups[r], f)
	}
	owners := map[*fact]*matter{}
	for _, m := range j.matters {
		owners[m.root] = m
	}
	var open []*matter
	for _, r := range roots {
		m, rest := j.heir(r, groups[r], owners)
		absorbed = append(absorbed, rest...)
		for _, a := range rest {
			a.told.Cause = "part of " + m.id
		}
		m.changed = m.changed || m.root != r || !slices.Equal(m.facts, groups[r])
		m.root, m.facts = r, groups[r]
		for _, f := range m.facts {
			f.matter = m
		}
		open = append(open, m)
	}
	slices.SortFunc(open, func(a, b *matter) int { return cmp.Compare(a.number, b.number) })
	j.matters = open
	return absorbed
}

// heir is the matter that goes on for a group: the oldest of its facts', or a
// new one.
func (j *Judge) heir(root *fact, group []*fact, owners map[*fact]*matter) (*matter, []*matter) {
	var known []*matter
	for _, f := range group {
		if m := owners[f]; m != nil {
			known = append(known, m)
		} else if m := j.ended[f.key]; m != nil && !f.over {
			delete(j.ended, f.key)
			m.past = m.told
			known = append(known, m)
		}
	}
	slices.SortFunc(known, func(a, b *matter) int { return cmp.Compare(a.number, b.number) })
	known = slices.Compact(known)
	if len(known) > 0 {
		return known[0], known[1:]
	}
	j.ids++
	return &matter{id: fmt.Sprintf("%s-%x-%d", root.Kind, j.now.Unix(), j.ids), number: j.ids, opened: j.now}, nil
}

// changed lists the matters that have other facts than when they were judged.
func (j *Judge) changed() []*matter {
	return slices.DeleteFunc(slices.Clone(j.matters), func(m *matter) bool { return !m.changed })
}

// judge returns what is to be reported now of matters, and of those that became
// part of others.
func (j *Judge) judge(absorbed, matters []*matter) []Incident {
	var out []Incident
	for _, m := range absorbed {
		if m.toldAs != "" {
			out = append(out, m.end(j.now, m.told.Cause))
		}
	}
	for _, m := range slices.Clone(matters) {
		m.changed = false
		in := j.incident(m)
		as := in.interesting()
		changed := as != m.toldAs
		if !changed && (in.Count == m.told.Count && in.Rate == m.told.Rate || in.Time.Sub(m.told.Time) < reportEvery) {
			continue
		}
		m.told, m.toldAs = in, as
		out = append(out, in)
		if in.State == Ended {
			j.close(m)
		}
	}
	return out
}

func (m *matter) end(at time.Time, why string) Incident {
	in := m.told
	in.State, in.Time, in.Rate, in.Cause = Ended, at, 0, why
	return in
}

func (j *Judge) close(m *matter) {
	j.matters = slices.DeleteFunc(j.matters, func(o *matter) bool { return o == m })
	for _, f := range m.facts {
		j.ended[f.key] = m
	}
	j.forget(m)
}

// interesting is what of an incident is worth a line at once when it changes.
func (in Incident) interesting() string {
	return fmt.Sprint(in.Kind, in.Severity, in.State, in.Cause, in.In, in.Copy, in.Process, in.Authorised, in.Encap, in.Outer.Destination)
}

// over tells whether all of a matter is, and has been for a while.
func (m *matter) over(now time.Time) bool {
	return !slices.ContainsFunc(m.facts, func(f *fact) bool { return !f.over || now.Sub(f.ended) < linger })
}

// step moves a matter to a clock that was set.
func (m *matter) step(by time.Duration) {
	m.opened = m.opened.Add(by)
	if m.toldAs != "" {
		m.told.Time = m.told.Time.Add(by)
	}
}
