package probe

import "math"

// correlation is that of two series over the last budgetSeconds (Pearson).
type correlation struct {
	x, y    [budgetSeconds]float64
	over1   [budgetSeconds]bool
	n, next int
}

func (c *correlation) add(x, y float64, over bool) {
	c.x[c.next], c.y[c.next], c.over1[c.next] = x, y, over
	c.next = (c.next + 1) % budgetSeconds
	c.n = min(c.n+1, budgetSeconds)
}

// over tells whether the budget was exceeded all the time.
func (c *correlation) over() bool {
	for _, o := range c.over1[:c.n] {
		if !o {
			return false
		}
	}
	return c.n == budgetSeconds
}

// idle tells whether it was exceeded at no time.
func (c *correlation) idle() bool {
	for _, o := range c.over1[:c.n] {
		if o {
			return false
		}
	}
	return true
}

// coefficient is between -1 and 1, and 0 where a series does not move. full
// tells whether there were budgetSeconds of it.
func (c *correlation) coefficient() (r float64, full bool) {
	n := float64(c.n)
	var sx, sy, sxx, syy, sxy float64
	for i := range c.n {
		x, y := c.x[i], c.y[i]
		sx, sy, sxx, syy, sxy = sx+x, sy+y, sxx+x*x, syy+y*y, sxy+x*y
	}
	d := math.Sqrt((n*sxx - sx*sx) * (n*syy - sy*sy))
	if d == 0 || math.IsNaN(d) {
		return 0, c.n == budgetSeconds
	}
	return (n*sxy - sx*sy) / d, c.n == budgetSeconds
}
