package evidence

import "sync"

// cache keeps values that were found good. It holds at most twice its limit:
// when the young half is full it becomes the old half, and the old half is
// forgotten.
type cache[K comparable, V any] struct {
	limit int // weight of one half

	mu         sync.Mutex // guards what follows
	young, old map[K]V
	weight     int // of young
}

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.young[k]
	if !ok {
		v, ok = c.old[k]
	}
	return v, ok
}

// put keeps v, unless it alone is above the limit.
func (c *cache[K, V]) put(k K, v V, weight int) {
	if weight > c.limit {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.weight+weight > c.limit || c.young == nil {
		c.young, c.old, c.weight = map[K]V{}, c.young, 0
	}
	c.young[k] = v
	c.weight += weight
}
