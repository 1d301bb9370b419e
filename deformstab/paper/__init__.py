"""The reproduction of Ruderman et al. (2018), which uses the library as any user would."""
