// Package dup finds values that are there twice.
package dup

// Find calls same for each value whose key an earlier one has.
func Find[T any, K comparable](values []T, key func(T) K, same func(first, second int)) {
	if len(values) <= 8 { // no garbage for the usual few
		for i := range values {
			for j := range i {
				if key(values[i]) == key(values[j]) {
					same(j, i)
					break
				}
			}
		}
		return
	}
	first := make(map[K]int, len(values))
	for i := range values {
		k := key(values[i])
		if j, ok := first[k]; ok {
			same(j, i)
		} else {
			first[k] = i
		}
	}
}
