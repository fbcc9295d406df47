package reference

import (
	"fmt"

	"waxseal/measure"
)

// checkContains refuses a name that contains itself, directly or through
// others: of two such names each would excuse the other.
func (v Values) checkContains() error {
	holds := map[string][]string{}
	for _, it := range v.Items {
		subject := measure.Subject(it.Name)
		holds[subject] = append(holds[subject], it.Contains...)
	}
	for _, e := range v.Firmware {
		holds[e.Name] = append(holds[e.Name], e.Contains...)
	}
	w := walk{holds: holds, state: map[string]int{}}
	for _, it := range v.Items {
		if err := w.visit(measure.Subject(it.Name)); err != nil {
			return err
		}
	}
	for _, e := range v.Firmware {
		if err := w.visit(e.Name); err != nil {
			return err
		}
	}
	return nil
}

// walk goes through the names depth first, each once.
type walk struct {
	holds map[string][]string
	state map[string]int // 1 while the name is open, 2 when it is done
	depth int
}

// maxDepth is more than any image nests.
const maxDepth = 64

func (w *walk) visit(name string) error {
	switch w.state[name] {
	case 1:
		return fmt.Errorf("%q contains itself", name)
	case 2:
		return nil
	}
	if w.depth++; w.depth > maxDepth {
		return fmt.Errorf("%q: names contain each other more than %d deep", name, maxDepth)
	}
	w.state[name] = 1
	for _, inner := range w.holds[name] {
		if err := w.visit(measure.Subject(inner)); err != nil {
			return err
		}
	}
	w.state[name] = 2
	w.depth--
	return nil
}
