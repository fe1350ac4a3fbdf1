package index_test

import "context"

// contextForTests is one that outlives the test which builds the shared index.
func contextForTests() context.Context { return context.Background() }
