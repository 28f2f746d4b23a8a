// SPDX-License-Identifier: MIT
#include "core/thread.h"
#include <signal.h>

int thread_start(pthread_t *thread, const char *name, void *(*function)(void *argument),
		 void *argument)
{
	sigset_t blocked, old;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGFPE);
	sigdelset(&blocked, SIGILL);
	sigdelset(&blocked, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &blocked, &old);
	error = pthread_create(thread, NULL, function, argument);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error == 0)
		pthread_setname_np(*thread, name);
	return error;
}
